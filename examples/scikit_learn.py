"""A table with wrong labels, by scikit-learn's interface: train, score, list what looks wrong."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keeprate import NoisyLabelClassifier

X, y = load_breast_cancer(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)

# A careless annotator gives a third of class 1 the label of class 0.
careless = np.random.default_rng(0).permutation(np.flatnonzero(y == 1))[: (y == 1).sum() // 3]
noisy = y.copy()
noisy[careless] = 0

classifier = make_pipeline(
    StandardScaler(),
    NoisyLabelClassifier(budget="20trials", epochs=20, batch_size=32, random_state=0),
)
classifier.fit(X, noisy)
print(f"test accuracy: {classifier.score(X_test, y_test):.3f}")

quality = classifier[-1].label_quality_
suspect = np.argsort(quality)[: len(careless)]
print(f"wrong among the {len(suspect)} most suspect: {np.isin(suspect, careless).mean():.0%}")
print("keep rates:", classifier[-1].keep_rate_.round(2))
