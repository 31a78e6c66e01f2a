"""Text with wrong labels, through a vectoriser: which library does a docstring come from?"""

import importlib
import inspect

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keeprate import NoisyLabelClassifier

MODULES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.ma"),
    "scipy": ("scipy.stats", "scipy.signal", "scipy.special", "scipy.optimize"),
    "torch": ("torch", "torch.nn", "torch.nn.functional", "torch.optim"),
}

library_of: dict[str, str] = {}  # by text: a docstring that two libraries share counts once
for library, names in MODULES.items():
    for name in names:
        for _, thing in inspect.getmembers(importlib.import_module(name), callable):
            text = inspect.getdoc(thing) or ""
            if len(text) > 200:
                library_of.setdefault(text[:600].replace(library, ""), library)
texts, labels = np.array(list(library_of)), np.array(list(library_of.values()))
X, X_test, y, y_test = train_test_split(texts, labels, stratify=labels, random_state=0)

rng = np.random.default_rng(0)
noisy = np.where(rng.random(len(y)) < 0.3, rng.choice(np.unique(y), len(y)), y)
classifier = make_pipeline(
    TfidfVectorizer(sublinear_tf=True, min_df=2),
    TruncatedSVD(100, random_state=0),
    StandardScaler(),
    NoisyLabelClassifier(budget=6, epochs=20, batch_size=32, random_state=0),
)
classifier.fit(X, noisy)
print(f"{len(X)} docstrings, {np.mean(noisy != y):.0%} of the labels wrong")
print(f"test accuracy: {classifier.score(X_test, y_test):.3f}")
suspect = np.argsort(classifier[-1].label_quality_)[:100]
print(f"wrong among the 100 most suspect: {np.mean(noisy[suspect] != y[suspect]):.0%}")
