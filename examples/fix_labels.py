"""No clean label anywhere: search, estimate the noise, correct the most suspect labels, retrain."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keeprate import NoisyLabelClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
labels = np.where(rng.random(len(y)) < 0.35, (y + 1) % 10, y)  # 35 % mistaken for the next digit

options = {"budget": 6, "epochs": 20, "batch_size": 32, "learning_rate": 0.002, "random_state": 0}
first = NoisyLabelClassifier(**options).fit(X, labels)  # a part of the noisy labels validates
print(f"estimated noise rate: {first.noise_rate_:.0%} +- {first.noise_rate_std_:.0%}")
print(f"test accuracy, labels as given: {first.score(X_test, y_test):.3f}")

# The labels that a person would look at: as many of the most suspect as are probably wrong.
suspect = np.argsort(first.label_quality_)[: int(first.noise_rate_ * len(labels))]
changed = suspect[first.suggested_labels_[suspect] != labels[suspect]]
print(f"{len(changed)} labels changed, {np.mean(labels[changed] != y[changed]):.0%} were wrong")

fixed = labels.copy()
fixed[changed] = first.suggested_labels_[changed]
print(f"wrong labels: {np.mean(labels != y):.0%} before, {np.mean(fixed != y):.0%} after")
second = NoisyLabelClassifier(**options).fit(X, fixed)
print(f"test accuracy, labels fixed: {second.score(X_test, y_test):.3f}")
