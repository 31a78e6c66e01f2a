"""A classifier from noisy labels in ten lines; then a search with a run folder and a report."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keeprate
from keeprate import NoisyLabelClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
noisy = np.where(np.random.default_rng(0).random(len(y)) < 0.3, (y + 1) % 10, y)

classifier = NoisyLabelClassifier(batch_size=32, random_state=0).fit(X, noisy)
print(f"test accuracy: {classifier.score(X_test, y_test):.1%}")
print(f"estimated noise rate: {classifier.noise_rate_:.1%}")
print("labels to look at first:", np.argsort(classifier.label_quality_)[:5])

# The same as a run: keeprate adds noise to clean labels, and compares with other methods.
data = keeprate.prepare("digits", noise="pairflip:0.35", seed=0)
config = keeprate.TrainingConfig(epochs=20, batch_size=32)
run = keeprate.search(data, budget=6, config=config, restarts=3, out="runs/quickstart")
for result in run.results:
    print(f"{result.label:28} test accuracy {result.last.test_accuracy:.1%}")
print("R(t):", run.schedule.keep_rate.round(2))

# The run folder keeps the schedule for other trainings.
again = keeprate.train(data, schedule="runs/quickstart", config=config, seed=1)
print(f"trained again: {again.results[0].last.test_accuracy:.1%}")
