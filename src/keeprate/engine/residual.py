"""Residual networks (He et al. 2016, Fig. 5): blocks whose input is added to their result.

Layers are named as in torchvision. The stem is another: it keeps the size of small images.
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm (Fig. 5, left)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(before, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to `[B, width, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        z: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return z


class ResNet(nn.Module):
    """A stem, four stages of blocks, the mean over the image and a linear layer.

    Parameters
    ----------
    blocks : tuple of four ints
        In each stage.
    widths : tuple of four ints
        Channels of each stage.
    channels : int
        Of the images.
    n_classes : int
    """

    def __init__(
        self, blocks: tuple[int, ...], widths: tuple[int, ...], channels: int, n_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, widths[0], 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(widths[0], widths[0], blocks[0], 1)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], 2)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], 2)
        self.layer4 = _stage(widths[2], widths[3], blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, as in torchvision
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]` to logits `[B, n_classes]`."""
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(before: int, width: int, n_blocks: int, stride: int) -> nn.Sequential:
    others = [BasicBlock(width, width, 1) for _ in range(n_blocks - 1)]
    return nn.Sequential(BasicBlock(before, width, stride), *others)


def _conv3x3(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False)


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential | None:
    """A 1x1 convolution where the block changes the shape, else nothing (option B)."""
    if before == after and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
