"""A network of one's own on images: any function that builds an `nn.Module`."""

from torch import nn

import keeprate


def small_cnn(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Batch norm and dropout train in lockstep, too."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * (height // 2) * (width // 2), n_classes),
    )


data = keeprate.prepare("digits", noise="symmetric:0.5")
config = keeprate.TrainingConfig(epochs=10, batch_size=32, optimizer="sgd", learning_rate=0.05)
run = keeprate.search(data, model=small_cnn, budget=4, config=config, restarts=1)
network = run.classifier.modules[0]
print(f"network: {sum(weights.numel() for weights in network.parameters()):,} weights")
for result in run.results:
    print(f"{result.label}: test accuracy {result.last.test_accuracy:.3f}")
