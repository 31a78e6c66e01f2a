"""How a run's classifier does in each class, beside whoever always names the most frequent one."""

from __future__ import annotations

from dataclasses import dataclass

from keeprate.records.bounds import Count, Score


@dataclass(frozen=True)
class ByClass:
    """Predictions of a run's classifier for held-out samples, counted by class.

    Attributes
    ----------
    is_of_test : bool
        Whether the samples are those of the test split, and not the validation samples.
    samples, predicted, right : tuple of C int
        Samples that have the label of the class, that are predicted to be of the class, and both.
    majority : int
        The class that most training labels name.
    majority_score : float or None
        What always naming this class scores by the metric of the run, with the shares of the
        training labels as class probabilities. None if the run has no scorer, or the scorer fails
        there.

    Examples
    --------
    >>> found = ByClass(True, (95, 5), (98, 2), (94, 1), 0)
    >>> found.accuracy, found.majority_accuracy, found.precision(1), found.recall(1)
    (0.95, 0.95, 0.5, 0.2)
    >>> found.worst(1)
    [1]
    """

    is_of_test: bool
    samples: tuple[Count, ...]
    predicted: tuple[Count, ...]
    right: tuple[Count, ...]
    majority: Count
    majority_score: Score | None = None

    def __post_init__(self) -> None:
        """Refuse counts that no predictions have."""
        columns = self.samples, self.predicted, self.right
        if len({*map(len, columns)}) != 1 or self.majority >= len(self.samples):
            raise ValueError("by_class must hold three numbers for each class")
        if any(right > min(both) for *both, right in zip(*columns, strict=True)):
            raise ValueError("by_class must hold no more right predictions than samples")
        if not sum(self.samples):
            raise ValueError("by_class must be of one sample or more")

    @property
    def split(self) -> str:
        """Which samples: "test" or "validation"."""
        return "test" if self.is_of_test else "validation"

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return sum(self.right) / sum(self.samples)

    @property
    def majority_accuracy(self) -> float:
        """The share of the samples that are of the most frequent class."""
        return self.samples[self.majority] / sum(self.samples)

    def precision(self, number: int) -> float | None:
        """The share of right ones among the predictions of a class; None if there are none."""
        n = self.predicted[number]
        return self.right[number] / n if n else None

    def recall(self, number: int) -> float | None:
        """The share of the samples of a class that are predicted so; None if there are none."""
        n = self.samples[number]
        return self.right[number] / n if n else None

    def worst(self, most: int) -> list[int]:
        """The classes with the lowest F1, 2 right / (samples + predicted), in their own order."""

        def f1(number: int) -> float:
            n = self.samples[number] + self.predicted[number]
            return 2 * self.right[number] / n if n else 1.0

        return sorted(sorted(range(len(self.samples)), key=f1)[:most])
