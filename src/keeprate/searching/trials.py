"""The trials of a search: ask a generation, train it, tell the study, until all are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from keeprate.engine import (
    Assignment,
    Candidate,
    Method,
    Outcome,
    Setup,
    carry_out,
    checkpoint_path,
    load_curves,
    result_paths,
    score_in_words,
)
from keeprate.searching.legs import Generation
from keeprate.searching.proposals import Proposals, tell
from keeprate.searching.pruners import Verdicts, get_pruner, values_of
from keeprate.searching.study import best_value

STREAM = "search"  # of seeds, and the name of the population's checkpoint


def order_of(number: int, proposals: Proposals) -> int:
    """Which sequence of batches trial `number` sees.

    Each generation sees another one: else the search would fit R(t) to one sequence.
    """
    return proposals.generation_of(number).start


class TrialLoop:
    """Trains the trials of a study, a generation at a time, until all are told.

    After a kill the loop picks up what was interrupted.

    Parameters
    ----------
    study : optuna.Study
    setup : Setup
        Of the run; the test split is left out here, so that no trial sees a test sample.
    proposals : Proposals
    method : Method
    pruner : str or BasePruner
    """

    def __init__(
        self,
        study: optuna.Study,
        setup: Setup,
        proposals: Proposals,
        method: Method,
        pruner: str | BasePruner,
    ) -> None:
        self._study, self._proposals, self._method = study, proposals, method
        self._setup = replace(setup, data=replace(setup.data, test=None))
        self._pruner = pruner
        self._n_told = 0

    def run(self) -> None:
        """Train until no trial is left."""
        self._tell_untold()
        while pending := self._proposals.ask(self._study):
            self._n_told = len(self._study.get_trials(deepcopy=False)) - len(pending)
            self._train(pending)

    def _train(self, pending: Sequence[FrozenTrial]) -> None:
        proposals, first = self._proposals, pending[0].number
        epochs = proposals.epochs_of(first)
        candidates = []
        for trial in pending:
            schedule = proposals.space.schedule(trial.params, proposals.epochs)
            candidates.append(Candidate(trial.number, schedule.stretched(epochs), self._method))
        generation = proposals.legs.generation_of(first)
        assignment = Assignment(
            candidates,
            stream=STREAM,
            order=order_of(first, proposals),
            stops=self._stops(pending, generation),
        )

        def show(epoch: int, n_candidates: int) -> None:
            if epoch < epochs:  # at the end the values are known, too
                self._show(self._n_told + n_candidates * epoch / epochs)

        setup = replace(self._setup, config=self._setup.config.shortened(epochs))
        carry_out(assignment, setup, after_epoch=show, after_training=self._after_training)

    def _after_training(self, outcome: Outcome) -> None:
        is_failed = outcome.is_failed
        tell(self._study, outcome.number, outcome.curves, self._proposals, failed=is_failed)
        self._n_told += 1
        self._show(self._n_told)

    def _show(self, n_done: float) -> None:
        if self._setup.progress is not None:
            best = best_value(self._study)
            words = None if best is None else score_in_words(best, self._setup.criterion)
            self._setup.progress("search", n_done, self._proposals.legs.trials, words)

    def _stops(self, pending: Sequence[FrozenTrial], generation: Generation) -> Verdicts | None:
        """What stops trials early, from all generations before; None without a pruner."""
        proposals = self._proposals
        epochs = proposals.epochs_of(0)
        if generation.round or isinstance(get_pruner(self._pruner, epochs), NopPruner):
            return None
        history, trials = [], self._study.get_trials(deepcopy=False)
        for earlier in proposals.legs.generations:
            if earlier.numbers.start < generation.numbers.start and not earlier.round:
                members = trials[earlier.numbers.start : earlier.numbers.stop]
                over = [t for t in members if t.state.is_finished()]
                curves = {t.number: json.loads(t.user_attrs["validation_score"]) for t in over}
                history.append((over, values_of(curves, epochs)))
        return Verdicts(self._pruner, epochs, {t.number: t for t in pending}, tuple(history))

    def _tell_untold(self) -> None:
        """Tell trials that were trained but not told: pruning depends on all of a population."""
        folder = self._setup.folder
        if folder is None:
            return
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        untold = {trial.number for trial in running}
        for path in (checkpoint_path(folder, STREAM), *result_paths(folder, STREAM)):
            if path is None or not path.exists():
                continue
            epoch, training, failed, curves = load_curves(path)
            if training and epoch < self._proposals.epochs_of(training[0]):
                continue
            for number in untold & curves.keys():
                is_failed = number in failed
                tell(self._study, number, curves[number], self._proposals, failed=is_failed)
