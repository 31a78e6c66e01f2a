"""Free texts -> numbers: TF-IDF of words and of characters, and a truncated SVD of both.

scikit-learn fits and transforms. What is fitted is saved as JSON and tensors, never as a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.errors import needs

MOST_TERMS = 20_000  # of words, and as many of characters
COMPONENTS = 128
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
    model : str
        A sentence-transformers model in place of all this; empty: none.
    width : int
        Features of a text: k, or the size of the model's embeddings.
    """

    vocabularies: tuple[tuple[str, ...], ...]
    idf: Tensor
    components: Tensor
    model: str = ""
    width: int = 0

    @classmethod
    def fit(cls, texts: Sequence[str], *, model: str | None = None) -> TextFeatures:
        """Learn terms and directions from texts, or take a model that has learnt elsewhere."""
        if model is not None:
            width = int(_embedder(model).get_embedding_dimension())
            return cls((), torch.empty(0), torch.empty(0, 0), model, width)
        from scipy import sparse
        from sklearn.decomposition import TruncatedSVD

        vectorizers = [_vectorizer(*analyser) for analyser in ANALYSERS]
        blocks, vocabularies, idf = [], [], []
        for vectorizer in vectorizers:
            try:
                block = vectorizer.fit_transform(texts)
            except ValueError:  # no term is in two texts
                block = sparse.csr_matrix((len(texts), 0), dtype=np.float32)
                vocabularies.append(())
                idf.append(np.empty(0))
            else:
                vocabularies.append(tuple(vectorizer.get_feature_names_out().tolist()))
                idf.append(vectorizer.idf_)
            blocks.append(block)
        terms = sparse.hstack(blocks).tocsr()
        k = min(COMPONENTS, terms.shape[1] - 1, len(texts) - 1)
        if k < 1:
            return cls(
                tuple(vocabularies),
                torch.tensor(np.concatenate(idf)),
                torch.zeros(1, terms.shape[1]),
                "",
                1,
            )
        svd = TruncatedSVD(k, random_state=0).fit(terms)
        scale = 1 / np.sqrt(max(float(svd.explained_variance_.mean()), 1e-12))
        components = (svd.components_ * scale).astype(np.float32)
        return cls(
            tuple(vocabularies),
            torch.from_numpy(np.concatenate(idf)),
            torch.from_numpy(np.ascontiguousarray(components)),
            "",
            k,
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the features [N, width] of texts."""
        if self.model:
            embeddings = _embedder(self.model).encode(list(texts), show_progress_bar=False)
            return np.asarray(embeddings, np.float32)
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
        return np.asarray(terms @ self.components.numpy().T, np.float32)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return JSON values and tensors."""
        described = {"vocabularies": self.vocabularies, "model": self.model, "width": self.width}
        return described, {"idf": self.idf, "components": self.components}

    @classmethod
    def from_parts(
        cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> TextFeatures:
        """Restore what `to_parts` gave."""
        vocabularies = tuple(tuple(terms) for terms in described["vocabularies"])
        idf, components = tensors["idf"], tensors["components"]
        return cls(vocabularies, idf, components, described["model"], int(described["width"]))


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
    return needs("sentence_transformers").SentenceTransformer(model, device="cpu")
