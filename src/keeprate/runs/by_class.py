"""Held-out samples, and what a run's networks predict for them, counted by class."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from keeprate.engine import Setup, probabilities
from keeprate.errors import InputError
from keeprate.records import ByClass
from keeprate.runs.finals import TrainedNetworks


def count_by_class(
    setup: Setup, networks: TrainedNetworks, *, trains_validation: bool
) -> ByClass | None:
    """Count test samples or, without any, validation samples that have not trained.

    Parameters
    ----------
    setup : Setup
    networks : TrainedNetworks
        Whose probabilities are averaged, as the classifier does.
    trains_validation : bool
        Whether the networks learnt from the validation samples.

    Returns
    -------
    ByClass or None
        None where no sample was held out.
    """
    data, device = setup.data, setup.config.resolve_device()
    if data.test is None and trains_validation:
        return None
    split = data.validation if data.test is None else data.test
    homes = [next(module.parameters()).device for module in networks.modules]
    modules = [module.to(device) for module in networks.modules]
    predicted = probabilities(modules, split.inputs, setup.normaliser).argmax(1).cpu()
    for module, home in zip(modules, homes, strict=True):
        module.to(home)
    labels = split.labels.cpu()
    counts = np.array(data.class_counts)
    score = None
    if setup.scorer is not None:
        # All is trained by now. The run is not lost for a metric that refuses such predictions.
        with suppress(InputError):
            score = setup.scorer.of_shares(labels, (counts / counts.sum()).tolist())
    samples, named, right = (
        tuple(some.bincount(minlength=data.n_classes).tolist())
        for some in (labels, predicted, labels[labels == predicted])
    )
    return ByClass(data.test is not None, samples, named, right, int(counts.argmax()), score)
