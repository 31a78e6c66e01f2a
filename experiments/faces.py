"""Faces for Table 1: people to train on, wrong names, and pairs of other people.

Nobody is in two of the four sets: people to train on, strangers (whose pictures stand under wrong
names, as in crawled data), people of the validation pairs, people of the test pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import keeprate
from keeprate import InputError
from keeprate.data import Data, Split, part
from keeprate.noise import Noise, asymmetric, corrupt
from keeprate.verification import Pairs, load_pairs

SIMILAR, STRANGERS = "similar", "strangers"
NOISES = {
    "symmetric:0.2": "symmetric 20 %",
    "symmetric:0.4": "symmetric 40 %",
    "similar:0.4": "a similar person 40 %",
    "strangers:0.3": "strangers 30 %",
}
CRAWLED = "none"  # wrong names as they are, which nobody knows
IN_WORDS = NOISES | {CRAWLED: "names as they are"}
LEAST_PICTURES = 2  # of a person, to make a pair
HELD_OUT = 0.05  # of the training pictures: the pairs validate, and a run needs some samples

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Pictures and who is on them.

    Attributes
    ----------
    images : uint8 Tensor [N, C, H, W]
    labels : int64 Tensor [N]
    names : tuple of str
        Label i is the person `names[i]`.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def part(self, people: Ints) -> People:
        """The pictures of some people, who are numbered anew in the given order."""
        place = torch.full((len(self.names),), -1)
        place[torch.from_numpy(people)] = torch.arange(len(people))
        labels = place[self.labels]
        kept = labels >= 0
        names = tuple(self.names[one] for one in people)
        return People(self.images[kept], labels[kept], names)


@dataclass(frozen=True)
class Faces:
    """What one seed trains on and is measured by."""

    data: Data
    validation: Pairs
    test: tuple[Pairs, ...]


def load_people(source: str | Path, side: int) -> People:
    """Read identity data: a folder a person, or Parquet files with a column of labels.

    Parameters
    ----------
    source : path
    side : int
        Pixels of the height and the width that all pictures get.
    """
    loaded = keeprate.load_data(Path(source), image_size=side)
    split = loaded.splits["train"]
    if split.inputs.ndim != 4 or split.inputs.dtype != torch.uint8:
        raise InputError(f"--train must hold pictures, got {source}; give a folder a person.")
    return People(split.inputs[:], split.labels, loaded.class_names)


def read_pairs(pairs: str | Path, images: str | Path | None, like: People) -> Pairs:
    """Read a list of pairs, with pictures of the size that the networks take."""
    channels, height, width = like.images.shape[1:]
    return load_pairs(pairs, images=images, image_size=(height, width), channels=channels)


def make_faces(
    people: People,
    test: tuple[Pairs, ...],
    *,
    noise: str,
    seed: int,
    n_pairs: int,
    validation: Pairs | None = None,
) -> Faces:
    """Cut the people into groups, draw validation pairs, and make names wrong.

    Parameters
    ----------
    people : People
    test : tuple of Pairs
        Of other people: where both tell names, nobody may be in both.
    noise : str
        A key of `NOISES`, another rate of these kinds, or `CRAWLED`.
    seed : int
    n_pairs : int
        Validation pairs to draw, half of them of one person.
    validation : Pairs, optional
        Given ones of other people, in place of pairs of a quarter of the people.
    """
    for pairs in (*test, *(() if validation is None else (validation,))):
        if both := set(people.names) & set(pairs.people):
            raise InputError(
                f"the pairs {pairs.name} must show nobody of --train, got {len(both)} people who "
                f"are in both ({sorted(both)[0]}, say); leave them out of one."
            )
    rng = np.random.default_rng([seed, 20260000])
    kind, _, rate = noise.partition(":")
    order = rng.permutation(len(people.names))
    if validation is None:
        n_held_out = len(order) // 4
        validation = draw_pairs(people.part(order[:n_held_out]), n_pairs, rng)
        order = order[n_held_out:]
    n_strangers = len(order) // 3 if kind == STRANGERS else 0
    known, strangers = people.part(order[n_strangers:]), people.part(order[:n_strangers])
    true: Tensor | None = known.labels
    if kind == STRANGERS:
        known, true = with_strangers(known, strangers, float(rate), rng)
    elif noise == CRAWLED:
        true = None
    else:
        known = replace(known, labels=wrong_names(known, noise, rng))
    return Faces(_as_data(known, true, noise, rng), validation, test)


def _as_data(people: People, true: Tensor | None, noise: str, rng: np.random.Generator) -> Data:
    everything = Split(people.images, people.labels, true_labels=true)
    order = rng.permutation(len(everything))
    n_held_out = math.ceil(HELD_OUT * len(order))
    held_out = replace(part(everything, order[:n_held_out]), true_labels=None, label_status="noisy")
    return Data(
        part(everything, order[n_held_out:]),
        held_out,
        None,
        people.names,
        name=f"faces, {IN_WORDS.get(noise, noise)}",
        validation_from=f"{n_held_out} of the {len(order)} training samples",
        normalise="centred",
    )


def draw_pairs(people: People, n_pairs: int, rng: np.random.Generator) -> Pairs:
    """Pairs of pictures, every second one of one person; every person is as likely.

    A pair is drawn by its people first, as people with many pictures would fill the list.
    """
    rows = [np.flatnonzero(people.labels.numpy() == one) for one in range(len(people.names))]
    several = [one for one, of_person in enumerate(rows) if len(of_person) >= LEAST_PICTURES]
    if len(several) < 2:
        raise InputError(
            f"--train must hold people with {LEAST_PICTURES} pictures or more for the validation "
            f"pairs, got {len(several)} of {len(rows)} held out; give --validation."
        )
    chosen = []
    for place in range(n_pairs):
        if place % 2 == 0:
            person = rng.choice(several)
            chosen.append(rng.choice(rows[person], 2, replace=False))
        else:
            one, other = rng.choice(len(rows), 2, replace=False)
            chosen.append(np.array([rng.choice(rows[one]), rng.choice(rows[other])]))
    taken, places = np.unique(np.array(chosen), return_inverse=True)
    first, second = torch.from_numpy(places.reshape(-1, 2)).unbind(1)
    labels = people.labels[torch.from_numpy(taken)]
    return Pairs(
        people.images[torch.from_numpy(taken)],
        first,
        second,
        labels[first] == labels[second],
        people=tuple(people.names[one] for one in labels.tolist()),
        name="validation",
    )


# Wrong names -----------------------------------------------------------------------------------


def wrong_names(people: People, noise: str, rng: np.random.Generator) -> Tensor:
    """Names with noise of a kind that stays among the people."""
    kind, _, rate = noise.partition(":")
    n = len(people.names)
    if kind == SIMILAR:
        matrix = asymmetric(n, float(rate), most_similar(people))
    else:
        matrix = Noise.parse(noise).transition_matrix(n)
    return torch.from_numpy(corrupt(people.labels.numpy(), matrix, rng=rng))


def most_similar(people: People) -> dict[int, int]:
    """For each person the one whose mean picture is most like theirs.

    Mean pictures are compared by the cosine after the mean of all pictures is subtracted, without
    a network: which names are mistaken depends on nothing that is trained here.
    """
    pixels = people.images.float().flatten(1)
    pixels = pixels - pixels.mean(0)
    sums = torch.zeros(len(people.names), pixels.shape[1]).index_add(0, people.labels, pixels)
    directions = torch.nn.functional.normalize(sums, dim=1)
    likeness = (directions @ directions.T).fill_diagonal_(-torch.inf)
    return dict(enumerate(likeness.argmax(1).tolist()))


def with_strangers(
    known: People, strangers: People, rate: float, rng: np.random.Generator
) -> tuple[People, Tensor]:
    """Add pictures of strangers under random names, so that they are a share of all.

    Returns
    -------
    people : People
    true : int64 Tensor [N]
        Who is on each picture; -1 for a stranger, who has no right name here.
    """
    n_wanted = round(rate / (1 - rate) * len(known.labels))
    if n_wanted > len(strangers.labels):
        n_wanted = len(strangers.labels)
        n_known = round(n_wanted * (1 - rate) / rate)
        rows = torch.from_numpy(rng.permutation(len(known.labels))[:n_known])
        known = replace(known, images=known.images[rows], labels=known.labels[rows])
    rows = torch.from_numpy(rng.permutation(len(strangers.labels))[:n_wanted])
    names = torch.from_numpy(rng.integers(len(known.names), size=n_wanted))
    images = torch.cat([known.images, strangers.images[rows]])
    labels = torch.cat([known.labels, names])
    true = torch.cat([known.labels, torch.full((n_wanted,), -1)])
    mixed = torch.from_numpy(rng.permutation(len(labels)))
    return People(images[mixed], labels[mixed], known.names), true[mixed]
