"""Images in class folders, some in the wrong one: search, look at the report, list what to move."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import keeprate

# Write digits into a folder for each class. Three in ten training images go to a random class.
pixels, classes = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
misplaced = rng.random(len(classes)) < 0.3
for i, (image, digit) in enumerate(zip(pixels.reshape(-1, 8, 8), classes, strict=True)):
    split = "test" if i % 5 == 0 else "train"
    given = rng.integers(10) if misplaced[i] and split == "train" else digit
    folder = Path("images") / split / str(given)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{i}.png")

# No label of the training split is known to be right: a part of the split validates with its noise.
data = keeprate.prepare("images", validation="noisy")
config = keeprate.TrainingConfig(epochs=20, batch_size=32, learning_rate=0.002)
run = keeprate.search(data, budget=6, config=config, restarts=1, out="run", baselines=False)
print(f"test accuracy: {run.results[0].last.test_accuracy:.3f}")
print("look at:", Path("run/report.html").resolve())

quality = run.label_quality
for i in quality.ranking[:5]:
    print(f"{quality.names[i]} looks like {data.class_names[quality.predicted[i]]}")
