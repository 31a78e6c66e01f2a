"""The trials of a search: ask a generation, train it, tell the study, until all are told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from keeprate.engine import (
    Candidate,
    Method,
    Population,
    Setup,
    checkpoint_path,
    load_curves,
    score_in_words,
    train_candidates,
    trial_value,
)
from keeprate.searching.proposals import Proposals, tell
from keeprate.searching.pruners import Judge, get_pruner
from keeprate.searching.study import best_value

STREAM = "search"  # of seeds, and the name of the population's checkpoint


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
        self._judge: Judge | None = None
        self._judged: tuple[int, ...] = ()  # the candidates that train together under the judge
        self._asked: dict[int, FrozenTrial] = {}
        self._n_before = 0  # trials of earlier generations

    def run(self) -> None:
        """Train until no trial is left."""
        self._tell_untold()
        while pending := self._proposals.ask(self._study):
            self._asked = {trial.number: trial for trial in pending}
            self._n_before = len(self._study.get_trials(deepcopy=False)) - len(pending)
            self._train(pending)

    def _train(self, pending: Sequence[FrozenTrial]) -> None:
        proposals, first = self._proposals, pending[0].number
        epochs = proposals.epochs_of(first)
        candidates = []
        for trial in pending:
            schedule = proposals.space.schedule(trial.params, proposals.epochs)
            candidates.append(Candidate(trial.number, schedule.stretched(epochs), self._method))
        train_candidates(
            candidates,
            replace(self._setup, config=replace(self._setup.config, epochs=epochs)),
            stream=STREAM,
            # Other batches for each generation: else the search would fit R(t) to one sequence.
            order=proposals.generation_of(first).start,
            after_epoch=self._after_epoch,
            after_group=self._after_group,
        )

    def _after_epoch(self, population: Population) -> None:
        """Stop what the pruner gives up."""
        curves = {n: c.validation_score for n, c in sorted(population.curves.items())}
        numbers, epochs = tuple(curves), self._proposals.epochs_of(min(curves))
        if min(numbers) < self._proposals.n_explored:
            if numbers != self._judged:
                # A new judge for each group, which knows all that is told: a group that is halved
                # and begins anew, and a resumed one, hear the same verdicts.
                self._judge, self._judged = self._make_judge(), numbers
            if self._judge is not None:
                trials = [self._asked[number] for number in numbers]
                values = _values(curves, epochs)
                population.drop(self._judge(trials, values, population.epoch))
        if population.epoch < epochs:  # at the end `_after_group` knows the values, too
            self._show(self._n_before + len(population.curves) * population.epoch / epochs)

    def _after_group(self, population: Population) -> None:
        for number, curves in population.curves.items():
            is_failed = number in population.failed
            tell(self._study, number, curves, self._proposals, failed=is_failed)
        trials = self._study.get_trials(deepcopy=False)
        self._show(sum(trial.state.is_finished() for trial in trials))

    def _show(self, n_done: float) -> None:
        if self._setup.progress is not None:
            best = best_value(self._study)
            words = None if best is None else score_in_words(best, self._setup.criterion)
            self._setup.progress("search", n_done, self._proposals.trials, words)

    def _make_judge(self) -> Judge | None:
        """Build the judge and feed it all finished exploring trials; None without a pruner."""
        proposals = self._proposals
        epochs = proposals.epochs_of(0)
        pruner = get_pruner(self._pruner, epochs)
        if isinstance(pruner, NopPruner):
            return None
        judge, first = Judge(pruner, epochs), 0
        explored = self._study.get_trials(deepcopy=False)[: proposals.n_explored]
        while first < len(explored):
            generation = proposals.generation_of(first)
            over = [t for t in explored[first : generation.stop] if t.state.is_finished()]
            curves = {t.number: json.loads(t.user_attrs["validation_score"]) for t in over}
            judge(over, _values(curves, epochs), epochs)
            first = generation.stop
        return judge

    def _tell_untold(self) -> None:
        """Tell trials that were trained but not told: pruning depends on all of a population."""
        path = checkpoint_path(self._setup.folder, STREAM)
        if path is None or not path.exists():
            return
        epoch, training, failed, curves = load_curves(path)
        if training and epoch < self._proposals.epochs_of(training[0]):
            return
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for number in {trial.number for trial in running} & curves.keys():
            is_failed = number in failed
            tell(self._study, number, curves[number], self._proposals, failed=is_failed)


def _values(curves: Mapping[int, Sequence[float]], epochs: int) -> dict[int, list[float]]:
    """The value of each trial after each of its epochs."""
    return {
        number: [trial_value(list(curve[:n]), epochs) for n in range(1, len(curve) + 1)]
        for number, curve in curves.items()
    }
