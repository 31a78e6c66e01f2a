"""A finished run, as Python code gets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import optuna

from keeprate.records import LabelQuality, Result, RunRecord
from keeprate.runs.classifier import Classifier
from keeprate.schedules import Schedule
from keeprate.text import percent, score_as_text


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run.

    Attributes
    ----------
    record : RunRecord
        Configuration, trials, results, cost: the contents of `record.json`. `record.cautions` says
        what to be careful with.
    schedule : Schedule
    classifier : Classifier
    label_quality : LabelQuality
        Of the training samples, and of the samples that were held out from them with labels as
        noisy; in the order of their rows.
    folder : Path or None
    study : optuna.Study or None
        Of a search.
    """

    record: RunRecord
    schedule: Schedule
    classifier: Classifier
    label_quality: LabelQuality
    folder: Path | None
    study: optuna.Study | None = field(default=None)

    @property
    def results(self) -> tuple[Result, ...]:
        """The best final training of each plan, the run's own first."""
        return self.record.results

    def __repr__(self) -> str:
        record, n_issues = self.record, self.record.label_issues
        lines = [f"Run({record.kind!r}, data={record.data.name!r}, noise={record.data.noise!r})"]
        for result in record.results:
            accuracy = result.last.test_accuracy
            words = "test" if accuracy is not None else "validation"
            accuracy = result.last.validation_accuracy if accuracy is None else accuracy
            lines.append(f"  {result.label}: {words} accuracy {percent(accuracy, 2)} at the end")
            if record.has_scorer:
                last, criterion = result.last, record.data.criterion
                score = last.validation_score if last.test_score is None else last.test_score
                lines[-1] += f", {criterion} {score_as_text(score, criterion, 2)}"
        if record.noise_estimate is not None:
            lines.append(f"  {record.noise_estimate.in_words()}")
        lines.append(
            f"  {n_issues:,} of {record.labels_judged:,} labels are more probably wrong than right"
        )
        lines += [f"  caution: {text}" for text in record.cautions]
        lines.append(f"  folder: {self.folder or 'none'}")
        return "\n".join(lines)
