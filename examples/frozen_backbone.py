"""A pretrained network: its features once and a search on them, or fine-tuning."""

import time

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import keeprate

# In place of a network from a hub: a small one that has learnt the digits 0 to 4.
pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
digits = torch.tensor(digits)


def make_backbone() -> nn.Sequential:
    """Images [B, 1, 8, 8] -> features [B, 128]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip


torch.manual_seed(0)
backbone, head = make_backbone(), nn.Linear(128, 5)
known = digits < 5
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=3e-3)
for _ in range(60):
    loss = nn.functional.cross_entropy(head(backbone(images[known])), digits[known])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
pretrained = backbone.state_dict()

# The task: the digits 5 to 9, of which a third of the training labels is wrong.
x, x_test, y, y_test = train_test_split(images[~known], digits[~known], random_state=0)


def prepare(inputs: torch.Tensor, inputs_test: torch.Tensor) -> keeprate.Data:
    """The same cuts and the same wrong labels for any inputs."""
    arrays = {"train": (inputs, y), "test": (inputs_test, y_test)}
    return keeprate.prepare(arrays, noise="symmetric:0.35", seed=0)


# 1. Frozen: the backbone sees each image once; the search trains small networks on its features.
started = time.perf_counter()
with torch.no_grad():
    features = prepare(backbone(x), backbone(x_test))
config = keeprate.TrainingConfig(epochs=30, batch_size=32)
run = keeprate.search(features, model="mlp", budget=6, config=config, out="runs/frozen")
for result in run.results:
    print(f"frozen, {result.label}: test accuracy {result.last.test_accuracy:.3f}")
print(f"features and search: {time.perf_counter() - started:.1f} seconds")


# 2. Fine-tuned: each candidate begins with the pretrained weights and a head of its own.
def fine_tuned(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """The backbone, no longer frozen, and a new head."""
    network = make_backbone()
    network.load_state_dict(pretrained)
    return nn.Sequential(*network, nn.Linear(128, n_classes))


config = keeprate.TrainingConfig(epochs=30, batch_size=32, learning_rate=1e-3)
run = keeprate.search(prepare(x, x_test), model=fine_tuned, budget=6, config=config)
for result in run.results:
    print(f"fine-tuned, {result.label}: test accuracy {result.last.test_accuracy:.3f}")
