"""Images in class folders, some in the wrong one: search, look at the report, list what to move."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import keeprate
from keeprate.engine import TrainingConfig
from keeprate.report import write_plots

pixels, classes = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
wrong = rng.random(len(classes)) < 0.3
folder = Path("digits")
for i, (image, label) in enumerate(zip(pixels.reshape(-1, 8, 8), classes, strict=True)):
    given = rng.integers(10) if wrong[i] and i % 5 else label  # each fifth one is surely right
    place = folder / ("train" if i % 5 else "test") / str(given)
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{i}.png")

# No label of the training split is known to be right: a part of it validates, with its noise.
data = keeprate.prepare(folder, validation="noisy")
config = TrainingConfig(epochs=20, batch_size=32, learning_rate=0.002)
run = keeprate.search(data, budget=6, config=config, restarts=1, out="run", baselines=False)
write_plots(run.record, Path("run"))
print(f"test accuracy: {run.record['results'][0]['last']['test_accuracy']:.3f}")
print("look at:", Path("run/report.html").resolve())

quality = run.label_quality
for i in quality.ranking[:5]:
    print(f"{quality.names[i]} looks like {data.class_names[quality.predicted[i]]}")
