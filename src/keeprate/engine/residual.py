"""Residual networks (He et al. 2016, Fig. 5): blocks whose input is added to their result.

Layers are named as in torchvision: `resnet50` has the names and shapes of its state dict.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm (Fig. 5, left)."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(before, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to `[B, width, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        z: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return z


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with batch norm (Fig. 5, right).

    The 3x3 convolution has the stride, as in torchvision; in the paper the first has it.
    """

    expansion = 4

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * self.expansion
        self.conv1 = _convolution(before, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, after, 1)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to `[B, 4 * width, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        z: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return z


Block: TypeAlias = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """A stem, four stages of blocks, the mean over the image and a linear layer.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
    blocks : tuple of four ints
        In each stage.
    widths : tuple of four ints
        Channels within the blocks of each stage.
    channels : int
        Of the images.
    n_outputs : int
    keeps_size : bool
        Whether the stem keeps the size of the images (small ones); else it shrinks them to a
        quarter: a 7x7 convolution and a pooling, each with stride 2.
    """

    def __init__(
        self,
        block: Block,
        blocks: tuple[int, ...],
        widths: tuple[int, ...],
        channels: int,
        n_outputs: int,
        *,
        keeps_size: bool,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if keeps_size else (7, 2)
        self.conv1 = _convolution(channels, widths[0], kernel, stride)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.maxpool = None if keeps_size else nn.MaxPool2d(3, stride=2, padding=1)
        after = [block.expansion * width for width in widths]
        self.layer1 = _stage(block, widths[0], widths[0], blocks[0], 1)
        self.layer2 = _stage(block, after[0], widths[1], blocks[1], 2)
        self.layer3 = _stage(block, after[1], widths[2], blocks[2], 2)
        self.layer4 = _stage(block, after[2], widths[3], blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(after[3], n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, as in torchvision
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to `[B, n_outputs]`."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        y: Tensor = self.fc(self.avgpool(x).flatten(1))
        return y


def _stage(block: Block, before: int, width: int, n_blocks: int, stride: int) -> nn.Sequential:
    others = [block(width * block.expansion, width, 1) for _ in range(n_blocks - 1)]
    return nn.Sequential(block(before, width, stride), *others)


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential | None:
    """A 1x1 convolution where the block changes the shape, else nothing (option B)."""
    if before == after and stride == 1:
        return None
    return nn.Sequential(_convolution(before, after, 1, stride), nn.BatchNorm2d(after))
