"""Which trials of a search explore, and which confirm: the search as planned, and what was added.

A leg is what is planned at once: trials that explore, a generation after the other, then rounds
that train the best schedules again. A search has one leg. Each addition to the finished search is
another one, and changes nothing in the legs before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from keeprate.errors import invalid
from keeprate.records import TrialCounts
from keeprate.searching.budget import confirming

FEW_CONFIRMING = 4  # so many trials that confirm do so in one round


@dataclass(frozen=True)
class Generation:
    """Trials that are asked for, and trained, together.

    Attributes
    ----------
    numbers : range
    round : int
        0: they explore. 1: they train the best schedules again. 2: the best of these once more.
    leg : int
        The first trial of their leg.
    """

    numbers: range
    round: int
    leg: int


@dataclass(frozen=True)
class Legs:
    """The trials of a search in the order of their numbers.

    Attributes
    ----------
    counts : tuple of TrialCounts
        Of each leg.
    sizes : callable
        Of so many trials and so many exploring ones, how many are asked for at once.

    Examples
    --------
    >>> legs = Legs((TrialCounts(22, 5), TrialCounts(6, 2)), lambda trials, n_explored: 10)
    >>> [str(one.numbers)[5:] for one in legs.generations]
    ['(0, 10)', '(10, 17)', '(17, 21)', '(21, 22)', '(22, 26)', '(26, 27)', '(27, 28)']
    >>> [one.round for one in legs.generations]
    [0, 0, 1, 2, 0, 1, 2]
    """

    counts: tuple[TrialCounts, ...]
    sizes: Callable[[int, int], int]

    @property
    def trials(self) -> int:
        """In all legs."""
        return sum(leg.trials for leg in self.counts)

    @property
    def first_explored(self) -> int:
        """How many trials of the first leg explore."""
        return self.counts[0].trials - self.counts[0].confirm

    @property
    def first_size(self) -> int:
        """How many trials of the first leg are asked for at once, while they explore."""
        return self.sizes(self.counts[0].trials, self.first_explored)

    @cached_property
    def generations(self) -> tuple[Generation, ...]:
        """All of them."""
        found, start = [], 0
        for place, leg in enumerate(self.counts):
            stop = start + leg.trials - leg.confirm
            size = self.sizes(leg.trials, leg.trials - leg.confirm)
            for first in range(start, stop, size):
                found.append(Generation(range(first, min(first + size, stop)), 0, start))
            for number, n_again in enumerate(rounds(self.counts[: place + 1]), 1):
                found.append(Generation(range(stop, stop + n_again), number, start))
                stop += n_again
            start += leg.trials
        return tuple(found)

    @cached_property
    def _starts(self) -> list[int]:
        return [one.numbers.start for one in self.generations]

    def generation_of(self, number: int) -> Generation:
        """The generation of trial `number`; an empty one behind the last trial."""
        if number >= self.trials:
            return Generation(range(self.trials, self.trials), 0, self.trials)
        return self.generations[bisect_right(self._starts, number) - 1]


def rounds(counts: Sequence[TrialCounts]) -> tuple[int, ...]:
    """How many schedules the last leg trains again, and how many of these once more.

    It has as many rounds as the legs before, or no new schedule could win: what was trained most
    often ranks first.

    Examples
    --------
    >>> [rounds([TrialCounts(40, n)]) for n in (10, 4, 0)]
    [(7, 3), (4,), ()]
    >>> rounds([TrialCounts(40, 10), TrialCounts(5, 2)])
    (1, 1)
    """
    n_before = n_rounds(counts[:-1])
    confirm = counts[-1].confirm
    last = confirm * 3 // 10 if confirm > FEW_CONFIRMING else 0
    if n_before > 1 and confirm > 1:
        last = max(1, last)
    return tuple(size for size in (confirm - last, last) if size)


def n_rounds(counts: Sequence[TrialCounts]) -> int:
    """How many rounds of confirmation a schedule can have been through."""
    return max((len(rounds(counts[: n + 1])) for n in range(len(counts))), default=0)


def added_counts(counts: Sequence[TrialCounts], n: int, *, confirm: bool) -> TrialCounts:
    """Plan `n` trials that are added to a finished search.

    A quarter of the trials confirm, as in a search of so many, and at least one for each round
    of confirmation before. Where none has confirmed yet, at most half of the new ones do.

    Raises
    ------
    InputError
        If no trial would be left to explore.

    Examples
    --------
    >>> five, forty = [TrialCounts(5, 0)], [TrialCounts(40, 10)]
    >>> [added_counts(five, n, confirm=True).confirm for n in (5, 11, 40)]
    [0, 4, 10]
    >>> [added_counts(forty, n, confirm=True).confirm for n in (3, 16, 40)]
    [2, 4, 10]
    """
    n_before = n_rounds(counts)
    if not confirm:
        return TrialCounts(n, 0)
    if n_before:
        if n <= n_before:
            raise invalid(
                "add_trials",
                f"be at least {n_before + 1} here, as the best schedules were trained again: a new "
                "schedule is tried once and must be trained as often to win",
                n,
                f"add {n_before + 1} trials or more",
            )
        return TrialCounts(n, max(2 * (n // 8), n_before))
    planned = min(confirming(sum(leg.trials for leg in counts) + n), n // 2)
    return TrialCounts(n, planned if planned > 1 else 0)
