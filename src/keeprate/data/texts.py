"""Free texts -> numbers: TF-IDF of words and of characters, and a truncated SVD of both.

scikit-learn fits and transforms. What is fitted is saved as JSON and tensors, never as a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.errors import Words, first_line, invalid, needs

MOST_TERMS = 20_000  # of words, and as many of characters
COMPONENTS = 128
LEAST_VARIANCE = 1e-6  # of a feature on average; below it texts are the same up to rounding
PROBE = "The quick brown fox jumps over the lazy dog."
ANALYSERS: tuple[tuple[str, tuple[int, int]], ...] = (("word", (1, 2)), ("char_wb", (2, 4)))


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """What training texts taught.

    Attributes
    ----------
    vocabularies : tuple of tuples of str
        The terms of each of `ANALYSERS`.
    idf : Tensor [F]
        Inverse document frequencies of all terms, one analyser after the other.
    components : Tensor [k, F]
        Directions of the truncated SVD, scaled so that features have unit variance on average.
    means : Tensor [k]
        Of the training texts; subtracted from the features. Of a model: the embedding of `PROBE`,
        by which another model of the same name is found out.
    model : str
        A sentence-transformers model in place of all this: its name, or the path of its folder.
        Empty: none.
    """

    vocabularies: tuple[tuple[str, ...], ...]
    idf: Tensor
    components: Tensor
    means: Tensor
    model: str = ""

    @property
    def width(self) -> int:
        """How many features a text has: k, or the size of the model's embeddings."""
        return len(self.means)

    @classmethod
    def fit(cls, texts: Sequence[str], *, model: str | None = None) -> TextFeatures:
        """Learn terms and directions from texts, or take a model that has learnt elsewhere.

        Parameters
        ----------
        texts : sequence of str
        model : str, optional
            The name or the folder of a sentence-transformers model.

        Raises
        ------
        InputError
            If the package is not installed, or the model is not on this machine.
        """
        if model is not None:
            folder = Path(model)  # without "..", as predictions may start elsewhere
            name = str(folder.resolve()) if folder.is_dir() else model
            probe = torch.from_numpy(_embed(_embedder(name), [PROBE])[0])
            return cls((), torch.empty(0), torch.empty(0, 0), probe, name)
        terms, vocabularies, idf = _learn_terms(texts)
        k = min(COMPONENTS, terms.shape[1] - 1, len(texts) - 1)
        components, variance = np.zeros((1, terms.shape[1])), 0.0
        if k >= 1:
            from sklearn.decomposition import TruncatedSVD

            # Texts that are all the same have no variance.
            with np.errstate(invalid="ignore", divide="ignore"):
                svd = TruncatedSVD(k, random_state=0).fit(terms)
            components, variance = svd.components_, float(svd.explained_variance_.mean())
        if variance < LEAST_VARIANCE:  # to scale it up would blow up rounding errors
            components, variance = np.zeros((1, terms.shape[1])), 1.0
        components = np.ascontiguousarray(components / np.sqrt(variance), np.float32)
        means = np.asarray(terms.mean(axis=0)).reshape(-1) @ components.T
        return cls(
            vocabularies,
            torch.from_numpy(idf),
            torch.from_numpy(components),
            torch.from_numpy(means.astype(np.float32)),
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the features [N, width] of texts.

        Raises
        ------
        InputError
            If the model is not on this machine, or another one has its name now.
        """
        if self.model:
            return _embed(self._checked_embedder, texts)
        from scipy import sparse

        blocks, start = [], 0
        for analyser, vocabulary in zip(ANALYSERS, self.vocabularies, strict=True):
            if vocabulary:
                vectorizer = _vectorizer(*analyser, vocabulary=vocabulary)
                vectorizer.idf_ = self.idf[start : start + len(vocabulary)].numpy()
                blocks.append(vectorizer.transform(texts))
            start += len(vocabulary)
        if not blocks:
            return np.zeros((len(texts), self.width), np.float32)
        terms = sparse.hstack(blocks).tocsr()
        return np.asarray(terms @ self.components.numpy().T - self.means.numpy(), np.float32)

    @cached_property
    def _checked_embedder(self) -> Any:
        """The model, once it gives what it gave in training."""
        embedder = _embedder(self.model)
        probe = _embed(embedder, [PROBE])[0]
        if probe.shape != (self.width,) or not np.allclose(probe, self.means.numpy(), atol=1e-3):
            requirement = "be the model of the training"
            remedy = "bring that model back, or train again"
            raise invalid("the text model", requirement, self.model, remedy)
        return embedder

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process loads the model itself."""
        return {n: value for n, value in vars(self).items() if n != "_checked_embedder"}

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return JSON values and tensors."""
        tensors = {"idf": self.idf, "components": self.components, "means": self.means}
        return {"vocabularies": self.vocabularies, "model": self.model}, tensors

    @classmethod
    def from_parts(
        cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> TextFeatures:
        """Restore what `to_parts` gave."""
        vocabularies = tuple(tuple(terms) for terms in described["vocabularies"])
        idf, components, means = (tensors[name] for name in ("idf", "components", "means"))
        return cls(vocabularies, idf, components, means, str(described["model"]))


def _learn_terms(
    texts: Sequence[str],
) -> tuple[Any, tuple[tuple[str, ...], ...], NDArray[np.float32]]:
    """Return the TF-IDF [N, F] of texts as a sparse matrix, the terms and their weights."""
    from scipy import sparse

    blocks, vocabularies, idf = [], [], []
    for analyser in ANALYSERS:
        vectorizer = _vectorizer(*analyser)
        try:
            blocks.append(vectorizer.fit_transform(texts))
        except ValueError:  # no term is in two texts
            vocabularies.append(())
        else:
            vocabularies.append(tuple(vectorizer.get_feature_names_out().tolist()))
            idf.append(vectorizer.idf_.astype(np.float32))
    blocks = blocks or [sparse.csr_matrix((len(texts), 0), dtype=np.float32)]
    weights = np.concatenate([np.empty(0, np.float32), *idf])
    return sparse.hstack(blocks).tocsr(), tuple(vocabularies), weights


def _vectorizer(
    analyser: str, lengths: tuple[int, int], *, vocabulary: Sequence[str] | None = None
) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer=analyser,
        ngram_range=lengths,
        sublinear_tf=True,
        min_df=2 if vocabulary is None else 1,
        max_features=MOST_TERMS if vocabulary is None else None,
        vocabulary=vocabulary,
        dtype=np.float32,
    )


def _embedder(model: str) -> Any:
    """Load a sentence-transformers model from a folder, or from the local cache by name."""
    package = needs("sentence_transformers", extra="text")
    try:
        return package.SentenceTransformer(
            model, device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # each kind of model raises its own
        # What is said of a name is that the Hub was not asked: nothing is downloaded.
        why = f", which fails: {first_line(error)[:300]}" if Path(model).exists() else ""
        raise invalid(
            "text_model",
            "be the folder of a sentence-transformers model, or a name in this machine's cache",
            Words(f"{model!r}{why}"),
            "download it (hf download NAME --local-dir FOLDER) and give the folder",
        ) from error


def _embed(embedder: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    embeddings = embedder.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)
    return np.asarray(embeddings, np.float32)
