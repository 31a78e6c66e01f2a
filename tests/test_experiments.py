"""The experiments on digits: rows, resumption, tables, claims, page, figures, committed results."""

from __future__ import annotations

import ast
import doctest
import json
import math
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon

import keeprate
from experiments import __main__ as command
from experiments import (
    claims,
    common,
    comparison,
    experience,
    fig1,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    results,
    table4,
    table7,
)
from experiments import jobs as jobs_module
from experiments import rows as rows_module
from experiments.claims import CLAIMS, FAILED, HELD, IN_PART, TIED, UNKNOWN, Source
from experiments.common import FIRST_REPORTING_SEED as FIRST
from experiments.common import NOISES, Protocol, load_data, read_results
from experiments.comparison import METHOD_ARMS, Comparison
from experiments.drawing import TABLES
from experiments.jobs import row_of
from experiments.markdown import search_in_words
from experiments.rows import in_words, mean_std, paper_numbers
from keeprate.data import Loaded, Split
from keeprate.errors import InputError
from keeprate.files import read_json
from keeprate.records.record import load_record
from keeprate.searching import EXPERIENCE, USUAL_GAP, Experience, Kernel, experience_digest
from tests.house import imports_of
from tests.searches import draw_no_page

TINY = Protocol("tiny", "digits", "mlp", epochs=2, seeds=2, budget="2trials", confirm=True)
SMALL = replace(
    table4.TABLE,
    arms=tuple(a for a in METHOD_ARMS if a.name in ("standard", "f-correction", "proposed")),
    protocols=(TINY,),
    noises=("pairflip:0.45",),
)


@pytest.fixture(scope="module", autouse=True)
def without_reports() -> Iterator[None]:
    """No experiment reads the report of a run; its pictures take longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results and the runs of the tiny table."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder


def run(folder: Path, **options: object) -> list[dict]:
    return SMALL.run(TINY, data="", runs=str(folder / "runs"), results=folder, **options)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing is left to train")


def made_up(seed: int, noise: str, name: str, epochs: int = 30, forgets: float = 0.2) -> dict:
    """A row whose accuracy rises, then falls by `forgets`."""
    rng = np.random.default_rng([seed, len(noise), len(name)])
    t = np.arange(epochs) / epochs
    test = 0.95 - 0.5 * np.exp(-20 * t) - forgets * t + rng.normal(0, 0.004, epochs)
    train = 0.5 + 0.4 * t
    precision = 0.98 - 0.4 * np.exp(-9 * t) - 0.5 * forgets * t
    best = int(test.argmax())
    rate = float(noise.split(":")[1])
    keep_rate = 1 - (rate + (0.15 if name == "proposed" else 0.0)) * np.minimum(4 * t, 1)
    curves = {"test_accuracy": test, "train_accuracy": train, "label_precision": precision}
    return {
        "noise": noise,
        "seed": seed,
        "name": name,
        "noise_rate": rate,
        "n_test": 5000,
        "last": {key: float(curve[-1]) for key, curve in curves.items()},
        "best": {"epoch": best + 1} | {key: float(curve[best]) for key, curve in curves.items()},
        "curves": {key: curve.tolist() for key, curve in curves.items()},
        "keep_rate": keep_rate.tolist(),
        "transition_error": 0.1 if name == "f-correction" else None,
        "seconds": 36.0,
        "cost": {"search_seconds": 324.0, "final_seconds": 36.0},
    }


FORGETS = {
    "jocor-searched": -0.02,
    "proposed": 0.0,
    "co-mining": 0.03,
    "co-teaching": 0.05,
    "f-correction": 0.5,
}


def write_made_up(
    folder: Path, *, seeds: int = 5, tables: Sequence[Comparison] = (*TABLES, table7.TABLE)
) -> None:
    """Results of Fig. 1 and of the tables, of the desk protocol."""
    for table in tables:
        rows = [
            made_up(seed, noise, arm.name, forgets=FORGETS.get(arm.name, 0.25))
            for seed in range(FIRST, FIRST + seeds)
            for noise in NOISES
            for arm in table.arms_of("desk")
        ]
        write_rows(folder, table.name, table.protocol("desk").as_row(), rows)
    protocol = fig1.get_protocol("desk")
    rows = []
    for number, setting in enumerate(protocol.settings()):
        row = made_up(0, setting.noise, "standard", setting.epochs, forgets=0.1 + 0.05 * number)
        rows.append(row | setting.as_row() | {"seed": 0})
    write_rows(folder, fig1.NAME, protocol.as_row(), rows)


def write_rows(folder: Path, item: str, protocol: dict, rows: list[dict]) -> None:
    content = {"command": "", "protocol": protocol, "versions": {}, "rows": rows}
    common.results_path(item, "desk", folder).write_text(json.dumps(content))


# Running ---------------------------------------------------------------------------------------


def test_rows_are_written(trained: Path) -> None:
    stored = read_results("table4", "tiny", trained)
    assert stored is not None
    assert stored["command"] == "python -m experiments table4 --protocol tiny"
    assert stored["protocol"] == TINY.as_row()
    assert TINY.as_row()["warm_start"] is False
    desk = table4.TABLE.protocol("desk")
    assert desk.as_row()["warm_start"] == experience_digest()
    keys = [(row["noise"], row["seed"], row["name"]) for row in stored["rows"]]
    names = ("standard", "f-correction", "proposed")
    assert keys == [("pairflip:0.45", seed, name) for seed in (FIRST, FIRST + 1) for name in names]
    for row in stored["rows"]:
        assert len(row["curves"]["test_accuracy"]) == 2
        assert row["last"]["test_accuracy"] == row["curves"]["test_accuracy"][-1]
        assert row["best"]["test_accuracy"] == max(row["curves"]["test_accuracy"])
        assert row["n_test"] == 359
        assert len(row["keep_rate"]) == 2
        assert row["cost"]["final_seconds"] > 0
        assert ("transition_error" in row) == (row["name"] == "f-correction")
    searched = [row for row in stored["rows"] if row["name"] == "proposed"]
    assert all(row["cost"]["candidate_epochs"] == 4 for row in searched)
    assert {"search_seconds" in row["cost"] for row in searched} == {True}
    first, second = (row["curves"]["test_accuracy"] for row in searched)
    assert first != second  # the seeds differ in noise, split and weights


def test_a_row_holds_what_its_record_holds(trained: Path) -> None:
    (folder,) = trained.glob("runs/*/pairflip-0.45-seed102-standard-*")
    record = load_record(folder)
    stored = read_results("table4", "tiny", trained)["rows"]
    for result in record.results:
        row = row_of(stored, {"seed": 102, "name": result.name})
        assert row["method"] == result.method and row["n_train"] == record.data.n_train
        assert row["last"]["label_precision"] == pytest.approx(
            result.curves.label_precision[-1], abs=1e-6
        )
        assert "epoch" not in row["last"] and row["best"]["epoch"] == result.best.epoch
        assert row["keep_rate"] == pytest.approx(result.schedule.keep_rate, abs=1e-6)
        assert row["seconds"] == row["cost"]["final_seconds"] == round(result.seconds, 6)
        assert row.get("transition_error") == pytest.approx(result.transition_error, abs=1e-6)
        assert set(row["cost"]) == {"candidate_epochs", "full_trainings", "final_seconds"}


def test_what_is_there_is_not_trained_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeprate, "train", refuse)
    monkeypatch.setattr(keeprate, "search", refuse)
    before = common.results_path("table4", "tiny", trained).stat().st_mtime_ns
    assert len(run(trained)) == 6
    assert common.results_path("table4", "tiny", trained).stat().st_mtime_ns == before


def test_a_killed_experiment_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, search, trained = keeprate.train, keeprate.search, []

    def killed(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(keeprate, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seeds=1)
    stored = read_results("table4", "tiny", tmp_path)
    assert stored is not None
    assert [row["name"] for row in stored["rows"]] == ["standard", "f-correction"]

    def count(*given: object, **options: object) -> object:
        trained.append((options["method"], options["baselines"]))
        return train(*given, **options)

    stored["rows"].pop()  # what the kill left out alone is trained again
    common.results_path("table4", "tiny", tmp_path).write_text(json.dumps(stored))
    monkeypatch.setattr(keeprate, "search", search)
    monkeypatch.setattr(keeprate, "train", count)
    names = ["standard", "f-correction", "proposed"]
    assert [row["name"] for row in run(tmp_path, seeds=1)] == names
    assert trained == [("f-correction", ())]


def test_runs_resume_from_their_folders(trained: Path, tmp_path: Path) -> None:
    records = sorted(trained.glob("runs/*/*/record.json"))
    assert len(records) == 4
    before = [path.stat().st_mtime_ns for path in records]
    again = SMALL.run(TINY, data="", runs=str(trained / "runs"), results=tmp_path)
    assert again == read_results("table4", "tiny", trained)["rows"]
    assert [path.stat().st_mtime_ns for path in records] == before


def test_table_7_takes_over_the_search_of_table_4(trained: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(keeprate, "train", refuse)
    basis = tuple(arm for arm in table7.TABLE.arms if arm.name == "basis")
    table = replace(table7.TABLE, arms=basis, protocols=(TINY,), noises=SMALL.noises)
    records = sorted(trained.glob("runs/*/*/record.json"))
    rows = table.run(TINY, data="", runs=str(trained / "runs"), results=tmp_path)
    assert len(rows) == 2
    assert sorted(trained.glob("runs/*/*/record.json")) == records
    other = replace(TINY, limit=200, seeds=1)  # another protocol has folders of its own
    table.run(other, data="", runs=str(trained / "runs"), results=tmp_path / "other")
    assert len(list(trained.glob("runs/*/*/record.json"))) == len(records) + 1


@pytest.mark.slow
def test_two_at_a_time_give_the_same(trained: Path, tmp_path: Path, forkserver, monkeypatch):
    # The processes get what spawned ones get, but do not import everything anew.
    monkeypatch.setattr(jobs_module, "get_context", lambda method: forkserver)
    table = replace(SMALL, arms=SMALL.arms[:1])
    rows = table.run(TINY, data="", runs=str(tmp_path), results=tmp_path, at_once=2)
    stored = read_results("table4", "tiny", trained)["rows"]
    for row in rows:
        same = row_of(stored, {"seed": row["seed"], "name": "standard"})
        assert same is not None
        # Other numbers of threads may round differently: a few samples of 359.
        for ours, theirs in zip(
            row["curves"]["test_accuracy"], same["curves"]["test_accuracy"], strict=True
        ):
            assert ours == pytest.approx(theirs, abs=0.03)
    assert sorted(row["seed"] for row in rows) == [FIRST, FIRST + 1]


def test_protocols_are_never_mixed(trained: Path) -> None:
    other = replace(TINY, epochs=3)
    with pytest.raises(InputError, match="epochs: 2 before, 3 now"):
        SMALL.run(other, data="", runs=str(trained / "runs"), results=trained)


def test_figure_1_trains_each_setting_once(tmp_path: Path, monkeypatch) -> None:
    base = fig1.Setting("digits", "symmetric:0.5", "mlp", epochs=1)
    factors = {
        "noise": {"half": base, "pairs": replace(base, noise="pairflip:0.45")},
        "optimiser": {"adam": base, "sgd": replace(base, optimizer="sgd", learning_rate=0.1)},
    }
    tiny = fig1.Protocol("tiny", 1, base, factors)
    rows = fig1.run(tiny, data="", runs=str(tmp_path / "runs"), results=tmp_path)
    assert len(rows) == 3
    assert [row["optimizer"] for row in rows] == ["adam", "adam", "sgd"]
    monkeypatch.setattr(keeprate, "train", refuse)
    assert fig1.run(tiny, data="", runs=str(tmp_path / "runs"), results=tmp_path) == rows
    assert fig1.rows_of(rows, base) == rows[:1]


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data must be a folder that holds mnist/"):
        load_data(str(tmp_path), "mnist", 100)


@pytest.mark.parametrize("protocol", ["desk", "paper"])
def test_protocols_ask_for_known_things(protocol: str) -> None:
    for table in (*TABLES, table7.TABLE):
        asked = table.protocol(protocol)
        assert asked.training_config().epochs == asked.epochs
        assert asked.search_config("basis").sampler == asked.sampler
        assert asked.data in common.DATA_SETS
        for arm in table.arms:
            assert not arm.paper_label or ("pairflip:0.45", arm.paper_label) in paper_numbers(
                table.paper_file, asked.data
            )
    for values in fig1.get_protocol(protocol).factors.values():
        assert fig1.get_protocol(protocol).base in values.values()


# Numbers ---------------------------------------------------------------------------------------


def test_the_examples_in_docstrings() -> None:
    tried = doctest.testmod(rows_module)
    assert tried.attempted and not tried.failed


def test_the_papers_numbers() -> None:
    file = "table4-6_early_stop_accuracy.csv"
    assert paper_numbers(file, "mnist")["pairflip:0.45", "F-correction"] == (9.50, 1.55)
    assert paper_numbers(file, "cifar-10")["symmetric:0.2", "Co-teaching+"] == (59.70, 1.07)
    assert paper_numbers(file, "cifar-100")["symmetric:0.5", "Proposed"] == (42.90, 0.40)
    spaces = paper_numbers("table7_search_space_ablation.csv", "mnist")
    assert spaces["pairflip:0.45", "power-decay"] == (94.99, 0.03)
    assert len(spaces) == 9


def test_tables_equal_what_the_rows_give_by_hand(tmp_path: Path) -> None:
    write_made_up(tmp_path)
    stored = read_results("table4", "desk", tmp_path)
    assert stored is not None
    own = [r for r in stored["rows"] if (r["noise"], r["name"]) == ("pairflip:0.45", "standard")]
    cells = []
    for when, what in (("last", "test_accuracy"), ("best", "test_accuracy")):
        values = [100 * row[when][what] for row in own]
        assert len(values) == 5
        mean = sum(values) / 5
        std = math.sqrt(sum((value - mean) ** 2 for value in values) / 4)
        cells.append(f"{mean:.2f}\xa0±\xa0{std:.2f}")
    assert f"| Standard | {cells[0]} | {cells[1]} | 68.86\xa0±\xa05.20 |" in results.text(tmp_path)


def test_one_seed_has_no_deviation() -> None:
    assert in_words(*mean_std([93.684])) == "93.68"
    mean, std = mean_std([1.0, 2.0, 4.0])
    assert (mean, std) == (pytest.approx(7 / 3), pytest.approx(statistics.stdev([1, 2, 4])))


def test_a_search_is_said_by_its_price_or_its_trials() -> None:
    desk = table4.TABLE.protocol("desk").as_row()
    assert search_in_words(desk) == "the price of 6 trainings (gaussian-process)"
    tiny = "2 trials (gaussian-process, which begin with nothing)"
    assert search_in_words(TINY.as_row()) == tiny
    assert search_in_words({"trials": 6, "warm_start": []}) == "6 trials by an earlier search"


def test_missing_runs_are_said() -> None:
    table = replace(SMALL, noises=("symmetric:0.5", "pairflip:0.45"))
    rows = [
        {"noise": "symmetric:0.5", "seed": FIRST, "name": "standard"},
        *(
            {"noise": "pairflip:0.45", "seed": s, "name": arm.name}
            for s in (FIRST, FIRST + 1)
            for arm in SMALL.arms
        ),
    ]
    assert list(comparison.missing(table, TINY, rows)) == [
        f"symmetric 50 %: Standard (seed {FIRST + 1})",
        "symmetric 50 %: F-correction, Proposed (all seeds)",
    ]
    assert list(comparison.missing(table, TINY, [])) == [
        "symmetric 50 %: every line (all seeds)",
        "pairflip 45 %: every line (all seeds)",
    ]


# Claims ----------------------------------------------------------------------------------------


def verdicts(source: Source) -> dict[str, str]:
    return {c.judge.__name__: c.verdict(source).verdict for c in CLAIMS if c.kind == source.kind}


def test_claims_that_hold_and_claims_that_do_not() -> None:
    arms = ("proposed", "co-teaching", "standard", "f-correction")
    rows = [
        made_up(0, noise, name, forgets=FORGETS.get(name, 0.2)) for noise in NOISES for name in arms
    ]
    for row in rows:
        if row["name"] == "f-correction":
            row["best"]["test_accuracy"] = 0.1
    source = Source("made up", "methods", rows, tuple(NOISES), arms)
    assert set(verdicts(source).values()) == {HELD}
    for row in rows:
        if row["name"] == "f-correction":
            row["best"]["test_accuracy"] = 0.99
        if row["name"] == "proposed" and row["noise"] == "symmetric:0.5":
            row["keep_rate"][-1] = 0.51
            row["last"] |= {"test_accuracy": 0.3, "label_precision": 0.3}
    assert set(verdicts(source).values()) == {FAILED}


def test_a_searched_line_ties_within_the_larger_deviation() -> None:
    means = {"proposed": (90.0, 0.1), "jocor": (92.0, 0.5), "jocor-searched": (91.6, 0.1)}

    def source_of(searched: float) -> Source:
        changed = means | {"jocor-searched": (searched, 0.1)}
        rows = [
            {"noise": noise, "seed": seed, "name": name}
            | {
                when: {"test_accuracy": (mean + std * (seed - 1)) / 100}
                for when in ("last", "best")
            }
            for noise in NOISES
            for name, (mean, std) in changed.items()
            for seed in range(3)
        ]
        return Source("made up", "all methods", rows, tuple(NOISES), tuple(means))

    (claim,) = (one for one in CLAIMS if one.kind == "all methods")
    for searched, expected in ((91.6, TIED), (92.4, TIED), (91.4, FAILED), (92.6, HELD)):
        assert claim.verdict(source_of(searched)).verdict == expected
    assert claim.verdict(replace(source_of(92.6), complete=False)).verdict == IN_PART
    source = source_of(91.6)
    verdict = claim.verdict(replace(source, names=("proposed", "jocor"), noises=("pairflip:0.45",)))
    assert verdict.verdict == FAILED
    words = "90.00 % (proposed), the best 92.00\xa0±\xa00.50 (jocor) (no)"
    assert verdict.evidence == [
        f"pairflip 45 %, {when} epoch: {words}" for when in ("last", "best")
    ]
    assert claim.verdict(replace(source, names=(*means, "standard"))).verdict == UNKNOWN


def test_the_default_of_train_is_a_line_of_its_own(tmp_path: Path) -> None:
    table = replace(SMALL, arms=(table4.AUTO,))
    (row,) = table.run(TINY, data="", runs=str(tmp_path / "runs"), results=tmp_path, seeds=1)
    assert (row["name"], row["method"], row["space"]) == ("auto", "auto", None)
    (folder,) = tmp_path.glob("runs/*/*-auto")
    record = load_record(folder)
    assert record.config["method"] == record.results[0].name == "auto"
    assert row["last"]["test_accuracy"] == round(record.results[0].last.test_accuracy, 6)


@pytest.mark.parametrize("there", [True, False])
def test_the_papers_claims_are_judged_by_its_methods_alone(tmp_path: Path, there: bool) -> None:
    write_made_up(tmp_path, tables=[table4.TABLE])
    stored = read_results("table4", "desk", tmp_path)
    assert stored is not None
    rows = [row for row in stored["rows"] if there or row["name"] != "jocor-searched"]
    write_rows(tmp_path, "table4", stored["protocol"], rows)
    own, other = (
        statistics.fmean(r["last"]["test_accuracy"] for r in stored["rows"] if r["name"] == name)
        for name in ("proposed", "jocor-searched")
    )
    assert other > own
    page = results.text(tmp_path)
    claim = page[page.index("**The proposed method is more accurate") :]
    assert "- Table 4, MNIST, desk: **held**" in claim[: claim.index("**The searched R(t)")]
    claim = page[page.index("**Not the paper's") :]
    assert ("Table 4, MNIST, desk: **held**" in claim[: claim.index("**The basis")]) == there
    assert ("JoCoR, searched R(t) (all seeds)" in page) != there
    assert page.count("| JoCoR, searched R(t) | –") == (0 if there else 3)


def searches(above: float, told: float = 1.0, long: float = 0.2, seeds: int = 4) -> Source:
    """Searches from the same start `above` points below keeprate's, by a little more or less."""
    rows: list[dict] = []
    for seed in range(seeds):
        for place, noise in enumerate(NOISES):
            ours, other = 0.9 + 0.001 * seed, 0.0001 * (place - 1 + seed)
            traces = {
                arm.name: [[3, 0.8, 0.5], [5, 0.9, ours - above / 100 - other]]
                for arm in fig6.FROM_START
            }
            traces["ours"] = [[3, 0.8, 0.5], [5, 0.9, ours]]
            key = {"noise": noise, "seed": seed}
            rows.append(key | {"traces": traces, fig6.TOLD: 0.5 - told / 100 - other})
            rows.append(key | {"traces": {"long": [[41, 0.9, ours + long / 100]]}})
    return Source("made up", "searches", rows)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (searches(0.5), HELD),
        (searches(-0.5), FAILED),
        (searches(0.0, seeds=2), TIED),
        (searches(-0.015), TIED),  # some above, some below
        (searches(0.5, told=-1.0), FAILED),
        (searches(0.5, long=0.29), HELD),
        (searches(0.5, long=0.31), FAILED),
        (replace(searches(0.5), complete=False), IN_PART),
    ],
)
def test_a_search_of_six_trainings_is_judged_by_paired_runs(source: Source, expected: str) -> None:
    assert verdicts(source)["search_earns_its_price"] == expected


def test_a_part_of_the_long_searches_says_nothing_yet() -> None:
    source = searches(0.5, long=9.0)
    assert verdicts(source)["search_earns_its_price"] == FAILED
    rows = [row for row in source.rows if "long" not in row["traces"] or row["seed"] < 3]
    assert verdicts(replace(source, rows=rows))["search_earns_its_price"] == IN_PART


def test_a_few_large_differences_are_a_tie() -> None:
    """The mean is above 0, and nearly all ranks below."""
    gaps = [-0.1 - 0.01 * place for place in range(16)] + [5.0, 6.0]
    ours = {("pairflip:0.45", seed): gap for seed, gap in enumerate(gaps)}
    compared = fig6.compare(ours, dict.fromkeys(ours, 0.0))
    assert compared is not None and compared.mean > 0 and compared.p_value is not None
    assert compared.p_value < 0.05 and not compared.ranks_agree
    assert claims._above(compared)[0] == TIED


def test_equal_differences_are_equal_ranks() -> None:
    ours = {("pairflip:0.45", seed): 100 * (0.9 + seed / 700) for seed in range(12)}
    others = {key: 100 * (value / 100 - 0.001) for key, value in ours.items()}
    compared = fig6.compare(ours, others)
    assert compared is not None and compared.p_value == wilcoxon([0.1] * 12).pvalue


def test_claims_are_not_settled_by_a_part() -> None:
    names = ("proposed", "co-teaching")
    rows = [made_up(0, "pairflip:0.45", name, forgets=FORGETS[name]) for name in names]
    source = Source("a part", "methods", rows, tuple(NOISES), names)
    judged = verdicts(source)
    assert judged["cleaner_than_co_teaching"] == judged["proposed_is_best"] == IN_PART
    assert judged["f_correction_fails"] == UNKNOWN
    # That it is the best is not known before every rival is there, that it is not, is.
    source = replace(source, names=(*names, "jocor"))
    assert verdicts(source)["proposed_is_best"] == UNKNOWN
    rows[0]["last"]["test_accuracy"] = 0.1
    assert verdicts(source)["proposed_is_best"] == FAILED
    assert set(verdicts(Source("nothing", "methods")).values()) == {UNKNOWN}


def test_a_peak_is_told_from_noise() -> None:
    falling, steady = (made_up(0, "symmetric:0.5", "standard", forgets=f) for f in (0.2, 0.0))
    peak = claims.peak_of([falling])
    curve = falling["curves"]["test_accuracy"]
    smooth = np.convolve(curve, np.ones(3) / 3, "valid")  # all but the first and the last epoch
    assert peak.epoch == smooth.argmax() + 2
    assert peak.drop == pytest.approx(100 * (smooth.max() - statistics.fmean(curve[-3:])))
    assert peak.falls
    assert not claims.peak_of([steady]).falls
    assert peak.train_gain is not None and peak.train_gain > 0
    falling["curves"]["train_accuracy"] = None
    assert claims.peak_of([falling]).train_gain is None


def test_fluctuation_is_no_fall() -> None:
    rng, row = np.random.default_rng(0), made_up(0, "symmetric:0.5", "standard")
    falls = 0
    for _ in range(50):
        row["curves"]["test_accuracy"] = rng.normal(0.9, 0.01, 30).tolist()
        falls += claims.peak_of([row]).falls
    assert falls <= 5


def test_a_claim_needs_every_seed_and_compares_the_same_ones() -> None:
    names = ("proposed", "co-teaching")
    rows = [
        made_up(seed, noise, name, forgets=FORGETS[name])
        for seed in (0, 1)
        for noise in NOISES
        for name in names
    ]
    rows[-1]["last"]["label_precision"] = 1.0  # Co-teaching's second seed is cleaner than both
    source = Source("two seeds", "methods", rows, tuple(NOISES), names, complete=False)
    assert verdicts(source)["proposed_is_best"] == IN_PART
    without = [row for row in rows if (row["seed"], row["name"]) != (1, "proposed")]
    assert verdicts(replace(source, rows=without))["cleaner_than_co_teaching"] == IN_PART


def test_claims_about_memorisation(tmp_path: Path) -> None:
    write_made_up(tmp_path)
    stored = read_results(fig1.NAME, "desk", tmp_path)
    assert stored is not None
    source = Source("f", "memorisation", stored["rows"], memorisation=fig1.get_protocol("desk"))
    assert verdicts(source)["rises_then_falls"] == HELD
    assert verdicts(replace(source, rows=stored["rows"][:1]))["rises_then_falls"] == IN_PART
    for row in stored["rows"]:
        row["curves"] = stored["rows"][0]["curves"]
    assert verdicts(source)["every_factor_matters"] == FAILED


# The synthetic study -----------------------------------------------------------------------------


SOME_TARGETS = ("plain drop", "late rise")


@pytest.fixture(autouse=True)
def some_targets(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "searched" in request.fixturenames:
        monkeypatch.setattr(fig3, "TARGETS", {name: fig3.TARGETS[name] for name in SOME_TARGETS})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Two seeds of every sampler on two targets, twenty evaluations each."""
    folder = tmp_path_factory.mktemp("fig3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig3, "TARGETS", {name: fig3.TARGETS[name] for name in SOME_TARGETS})
        return folder, fig3.run(seeds=2, evaluations=20, results=folder)


def test_the_targets_are_schedules_that_differ() -> None:
    shapes = np.array(list(fig3.TARGETS.values()))
    assert shapes.shape == (6, fig3.T)
    assert (shapes[:, 0] == 1).all() and (shapes > 0).all() and (shapes <= 1).all()
    rises = [bool((np.diff(shape) > 1e-9).any()) for shape in shapes]
    assert rises == [True, False, False, True, False, False]


def test_the_error_is_that_of_the_best_schedule_found(searched) -> None:
    _, rows = searched
    assert len(rows) == 2 * len(fig3.TARGETS) * len(fig3.arms())
    space = keeprate.schedules.get_space("basis")
    for row in rows:
        first, last = row["rmse"]
        assert 0 < last <= first
        if row["arm"].startswith("random-"):
            continue
        parameters = dict(zip(space.distributions(fig3.T), row["parameters"], strict=True))
        keep_rate = space.schedule(parameters, fig3.T).keep_rate
        error = math.sqrt(statistics.fmean((keep_rate - fig3.TARGETS[row["target"]]) ** 2))
        assert last == pytest.approx(error, abs=1e-5)


def test_samplers_start_alike_and_learn(searched) -> None:
    """The ablated natural gradients draw the same first batch, then go their own ways."""
    _, rows = searched
    rmse = {(r["arm"], r["target"], r["seed"]): r["rmse"] for r in rows}
    ablation = ("ng-paper", "ng-ranks", "ng")
    for target in fig3.TARGETS:
        assert len({rmse[arm, target, 0][0] for arm in ablation}) == 1
    for other in ablation[:-1]:
        assert any(rmse[other, t, s] != rmse["ng", t, s] for t in fig3.TARGETS for s in (0, 1))


def test_finished_searches_are_not_repeated(searched, monkeypatch) -> None:
    folder, rows = searched
    monkeypatch.setattr(fig3, "search_known", refuse)
    assert fig3.run(seeds=2, evaluations=20, results=folder) == rows
    with pytest.raises(InputError, match="another protocol"):
        fig3.run(seeds=2, evaluations=30, results=folder)


def test_medians_by_hand(searched) -> None:
    _, rows = searched
    two = [r["rmse"][0] for r in rows if r["arm"] == "gp" and r["target"] == "plain drop"]
    _, median, _ = fig3.quartiles(rows, "gp", "plain drop", 10)
    assert len(two) == 2 and median == pytest.approx(sum(two) / 2)
    assert fig3.quartiles(rows, "no such", "plain drop", 10) is None
    assert fig3.quartiles(rows, "gp", "plain drop", 30) is None  # twenty were evaluated


# The experience that ships ---------------------------------------------------------------------


def stored_experience() -> list[dict]:
    stored = read_results(experience.NAME, "")
    if stored is None:
        pytest.skip(f"not run yet: {common.command_of(experience.NAME, '')}")
    assert stored["protocol"] == json.loads(json.dumps(experience.PROTOCOL))
    rows: list[dict] = stored["rows"]
    return rows


def test_what_ships_is_what_the_committed_results_say(monkeypatch) -> None:
    rows, shipped = stored_experience(), read_json(EXPERIENCE)
    # The kernel is found by another test.
    monkeypatch.setattr(experience, "likeliest_kernel", lambda tasks: Kernel(**shipped["kernel"]))
    assert shipped == experience.shipped(rows)


def test_what_ships_was_seen_with_development_seeds_alone() -> None:
    rows = stored_experience()
    keys = {(row["noise"], row["seed"]) for row in rows}
    wanted = {(noise, seed) for noise in experience.NOISES for seed, *_ in experience.SETTINGS}
    assert keys == wanted and len(rows) == len(keys)
    assert min(row["seed"] for row in rows) >= common.FIRST_DEVELOPMENT_SEED
    assert len({json.dumps(row["keep_rates"]) for row in rows}) == len(rows)  # drawn anew
    for row in rows:
        varied = row["seed"] >= experience.FIRST_VARIED
        n_schedules = experience.SHIPPED if varied else experience.SCHEDULES
        assert len(row["keep_rates"]) == len(row["values"]) == n_schedules


def test_varied_digits_are_of_other_digits_in_training_and_validation(monkeypatch) -> None:
    """And look like digits: a network learns the ones from the others."""
    from sklearn.neighbors import KNeighborsClassifier

    varied = experience.digits(1004, 3_000)
    plain = experience.digits(1004, 0)
    assert list(plain.splits) == ["train"] and len(plain.splits["train"]) == 1_797
    train, validation = varied.splits["train"], varied.splits["validation"]
    assert (len(train), len(validation)) == (3_000, experience.N_VALIDATION)
    assert train.inputs.shape[1:] == (1, 8, 8) and train.inputs.dtype == torch.float32
    assert train.inputs.min() == 0 and 15 < train.inputs.max() <= 16
    neighbours = KNeighborsClassifier(3).fit(train.inputs.flatten(1), train.labels)
    assert neighbours.score(validation.inputs.flatten(1), validation.labels) > 0.95
    again = experience.digits(1004, 3_000).splits["train"]
    assert again.inputs.equal(train.inputs)
    assert not experience.digits(1005, 3_000).splits["train"].inputs.equal(train.inputs)
    monkeypatch.setattr(experience, "_vary", lambda image, rng: np.float32(image))
    as_they_are = experience.digits(1004, 3_000).splits.values()
    seen, held_out = ({image.tobytes() for image in one.inputs.numpy()} for one in as_they_are)
    assert len(seen) > 1_200 and len(held_out) > 300 and len(seen & held_out) < 3  # equal digits


@pytest.mark.slow
def test_the_kernel_that_ships_is_the_likeliest() -> None:
    rows, shipped = stored_experience(), read_json(EXPERIENCE)["kernel"]
    tasks = [experience.task_of(row) for row in rows]
    found = vars(experience.likeliest_kernel(tasks))
    assert found == pytest.approx(shipped, rel=0.02)  # other processors round differently


def test_experience_is_made_once_and_from_all_its_rows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(experience, "NOISES", ("none", "pairflip:0.4"))
    monkeypatch.setattr(experience, "SETTINGS", ((1000, 4, 64, 0), (1001, 3, 128, 300)))
    monkeypatch.setattr(experience, "SCHEDULES", 8)
    monkeypatch.setattr(experience, "SHIPPED", 4)
    monkeypatch.setattr(experience, "EVALUATIONS", 10)
    file = tmp_path / "shipped.json"
    rows = experience.run(results=tmp_path, experience=file)
    assert [(row["seed"], row["noise"]) for row in rows] == [
        (seed, noise) for seed in (1000, 1001) for noise in ("none", "pairflip:0.4")
    ]
    for row in rows:
        rates = np.array(row["keep_rates"])
        assert rates.shape == ((8, 4) if row["seed"] == 1000 else (4, 3))
        assert (rates[:, 0] == 1).all()
        assert rates.min() > 0 and rates.max() <= 1 and len(set(row["values"])) > 1
    shipped, tasks = read_json(file), [experience.task_of(row) for row in rows]
    assert len(shipped["tasks"]) == 4
    for task, row, kept in zip(tasks, rows, shipped["tasks"], strict=True):
        rate = 0.4 if row["noise"] == "pairflip:0.4" else 0.0
        rates = np.array(row["keep_rates"])[:: 2 if row["seed"] == 1000 else 1]
        ends = np.minimum((1 - rates[:, -1]) / max(rate, 0.05), 3)
        assert np.array(kept["drops"])[:, -1] == pytest.approx(ends, abs=1e-3)
        assert (kept["noise_rate"], kept["rival_share"]) == (rate, round(rate / 0.6, 4))
        assert kept["loss_gap"] == row["loss_gap"] and 0 <= row["loss_gap"] <= 1
        assert kept["scores"] == pytest.approx(task.scores, abs=1e-3)
    first, found = experience.FIRST_GUESS, Kernel(**shipped["kernel"])
    assert Experience(tasks, found).log_likelihood >= Experience(tasks, first).log_likelihood - 0.01
    before = file.read_bytes()
    monkeypatch.setattr(experience, "train", refuse)
    assert experience.run(results=tmp_path, experience=file) == rows
    assert file.read_bytes() == before


# Searches on real trainings ----------------------------------------------------------------------


CHEAP = fig6.Protocol("cheap", "digits", "mlp", epochs=4, batch_size=64, limit=400, seeds=1)


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """The searches of Fig. 6 on digits: one noise, one seed, a long search of eight trials."""
    folder = tmp_path_factory.mktemp("fig6")
    with pytest.MonkeyPatch.context() as patch:
        make_figure_6_small(patch)
        return folder, fig6.run(CHEAP, data="", results=folder)


def make_figure_6_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fig6, "NOISES", {"pairflip:0.45": NOISES["pairflip:0.45"]})
    long = replace(fig6.LONG_ARM, begin=partial(fig6._ours, cost=8))
    patch.setitem(fig6.GROUPS, "long", (long,))


@pytest.fixture
def cheap_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows the cheap protocol."""
    monkeypatch.setattr(fig6, "PROTOCOLS", (CHEAP,))
    monkeypatch.setattr(results, "DATA_SETS", results.DATA_SETS | {"digits": "digits"})


def test_searches_spend_alike_and_are_judged_by_what_they_would_choose(rivals) -> None:
    _, rows = rivals
    keys = [(row["noise"], row["seed"], row["group"]) for row in rows]
    assert keys == [("pairflip:0.45", FIRST, group) for group in fig6.GROUPS]
    traces = {name: trace for row in rows for name, trace in row["traces"].items()}
    assert set(traces) == {arm.name for arm in (*fig6.ARMS, fig6.LONG_ARM)}
    first = {arm.name for arm in fig6.ALONE}
    for name, trace in traces.items():
        spent, values, tests = map(list, zip(*trace, strict=True))
        # The short training takes all four epochs here: the data are few.
        costs = range(1, 7) if name in first else range(2, 10 if name == "long" else 7)
        assert spent == pytest.approx(list(costs))
        assert values == sorted(values)  # nothing is confirmed
        assert all(0 < number <= 1 for number in (*values, *tests))
    assert fig6.at_cost(traces["random"], 0.5) is None
    assert fig6.at_cost(traces["random"], 3.5) == tuple(traces["random"][2][1:])
    assert fig6.at_cost(traces["ours"], 1) is None  # the noise is known, and no schedule yet
    mean = fig6.curves_of([traces["random"], traces["ours"]], 6, 1).mean(0)
    assert np.isnan(mean[0]) and mean[5] == pytest.approx(
        (traces["random"][5][2] + traces["ours"][4][2]) / 2
    )


def test_arms_from_the_same_start_share_it_and_go_on_by_themselves(rivals) -> None:
    _, (shared, long, alone) = rivals
    ours = shared["traces"]["ours"]
    for arm in fig6.FROM_START:
        assert shared["traces"][arm.name][: fig6.START] == ours[: fig6.START]
    ends = {json.dumps(shared["traces"][arm.name]) for arm in (fig6.OURS, *fig6.FROM_START)}
    assert len(ends) > 3
    assert shared["conditions"] == long["conditions"] and 0 < shared["conditions"][0] < 1
    assert alone["conditions"] == [0, 0, USUAL_GAP] and 0 < shared[fig6.TOLD] < 1
    assert fig6.TOLD not in alone


def test_a_search_never_sees_a_test_accuracy(monkeypatch) -> None:
    """Other test labels change what is reported, and no value."""
    prepare = keeprate.prepare

    def wrong(*given, **options):
        data = prepare(*given, **options)
        return replace(data, test=replace(data.test, labels=(data.test.labels + 1) % 10))

    protocol = replace(CHEAP, epochs=2, limit=200)
    search = partial(fig6.search_group, protocol, "symmetric:0.5", 100, "", "ours")
    true = search()
    monkeypatch.setattr(keeprate, "prepare", wrong)
    other = search()
    assert other["conditions"] == true["conditions"]
    for name, trace in true["traces"].items():
        assert [step[:2] for step in trace] == [step[:2] for step in other["traces"][name]]
        assert [step[2] for step in trace] != [step[2] for step in other["traces"][name]]


def test_finished_groups_of_figure_6_are_not_repeated(rivals, tmp_path: Path, monkeypatch) -> None:
    folder, rows = rivals
    stored = read_results(fig6.NAME, CHEAP.name, folder)
    stored["rows"] = [row for row in rows if row["group"] != "alone"]  # as a kill left it
    common.results_path(fig6.NAME, CHEAP.name, tmp_path).write_text(json.dumps(stored))
    make_figure_6_small(monkeypatch)
    search, asked = fig6.search_group, []

    def spy(*given):
        asked.append(given[-1])
        return search(*given)

    monkeypatch.setattr(fig6, "search_group", spy)
    again = fig6.run(CHEAP, data="", results=tmp_path)
    assert asked == ["alone"]
    (old,), (new,) = ([r["traces"] for r in of if r["group"] == "alone"] for of in (rows, again))
    assert new == old  # each group depends on nothing of the others
    monkeypatch.setattr(fig6, "search_group", refuse)
    assert fig6.run(CHEAP, data="", results=folder) == rows
    with pytest.raises(InputError, match="another protocol"):
        fig6.run(replace(CHEAP, epochs=5), data="", results=folder)


def test_the_command_runs_and_draws_figure_6(monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(fig6, "run", lambda *given, **options: asked.append((given, options)))
    monkeypatch.setattr(fig6, "draw", lambda protocol: [f"fig6-{protocol}.png"])
    words = ["fig6", "--protocol", "cifar-10", "--seeds", "2", "--jobs", "2", "--data", "here"]
    assert command.main(words) == 0
    protocol = fig6.get_protocol("cifar-10")
    assert asked == [((protocol,), {"data": "here", "seeds": 2, "at_once": 2})]
    assert "fig6-cifar-10.png" in capsys.readouterr().out


def test_figure_6_and_its_part_of_the_page(rivals, cheap_page, tmp_path: Path) -> None:
    folder, rows = rivals
    _, svg = fig6.draw(CHEAP.name, results=folder, images=tmp_path)
    assert all(arm.label in svg.read_text() for arm in fig6.ARMS)
    page = results.text(folder)
    assert "3 of 9 runs are there." in " ".join(page.split())
    found = {name: trace for row in rows for name, trace in row["traces"].items()}
    at_three = {name: fig6.at_cost(trace, 3)[1] for name, trace in found.items()}
    part = page[page.index("Cost 3:") : page.index("Cost 6:")]
    for name, label in (("ours", "keeprate's search"), ("random", "random search")):
        assert f"| {label} | – | – | {100 * at_three[name]:.2f} |" in part.replace("**", "")
    difference = 100 * (at_three["random"] - at_three["ours"])
    assert f"| {difference:+.2f} (1 run) |" in part


def test_differences_of_searches_come_with_p_values(rivals, cheap_page, tmp_path: Path) -> None:
    """Seven seeds, of which one has no difference."""
    folder, _ = rivals
    stored = read_results(fig6.NAME, CHEAP.name, folder)
    gaps = [-1.0, -2.0, -0.5, 0.0, -4.0, 1.5, -3.0]
    stored["rows"] = []
    for seed, gap in enumerate(gaps):
        key = {"noise": "pairflip:0.45", "seed": FIRST + seed, "seconds": 1.0}
        ours, rival = [[6.0, 0.9, 0.8]], [[6.0, 0.9, 0.8 + gap / 100]]
        stored["rows"].append(key | {"group": "ours", "traces": {"ours": ours, "tpe": rival}})
    common.results_path(fig6.NAME, CHEAP.name, tmp_path).write_text(json.dumps(stored))
    page = results.text(tmp_path)
    wanted = f"{statistics.fmean(gaps):+.2f} (p = {wilcoxon(gaps).pvalue:.2g}, 7 runs)"
    (line,) = [line for line in page.splitlines() if line.startswith("| TPE | – | – | 78")]
    assert line.endswith(f"| {wanted} |")


# What a seed may see -----------------------------------------------------------------------------


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of 40 training and 30 test samples, each with a number of its own as input."""

    def split(first: int, n: int) -> Split:
        inputs = torch.arange(first, first + n, dtype=torch.float32)[:, None]
        return Split(inputs, torch.arange(n) % 3)

    loaded = Loaded({"train": split(0, 40), "test": split(1000, 30)}, ("a", "b", "c"), "numbered")
    monkeypatch.setattr(common, "_read", lambda folder, name: loaded)


def numbers_of(data: keeprate.Data) -> dict[str, list[float]]:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: sorted(one.inputs[:, 0].tolist()) for name, one in parts.items() if one}


def test_reporting_seeds_have_the_same_halves_of_the_test_split(numbered) -> None:
    seen = []
    for seed in (0, 100, 102, 999):
        loaded = load_data("", "numbered", seed)
        seen.append(numbers_of(keeprate.prepare(loaded, noise="symmetric:0.5", seed=seed)))
    for one in seen:
        assert one["train"] == list(range(40))
        assert one["validation"] == seen[0]["validation"] and one["test"] == seen[0]["test"]
    halves = set(seen[0]["validation"]), set(seen[0]["test"])
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(range(1000, 1030))
    assert len(halves[0]) == len(halves[1]) == 15
    labels = [load_data("", "numbered", 100).splits[side].labels for side in common.HALVES]
    assert [of_side.bincount().tolist() for of_side in labels] == [[5, 5, 5]] * 2


def test_development_seeds_see_no_test_sample(numbered) -> None:
    for seed in (1000, 1001, 5000):
        loaded = load_data("", "numbered", seed)
        assert list(loaded.splits) == ["train"]
        seen = numbers_of(keeprate.prepare(loaded, noise="symmetric:0.5", seed=seed))
        assert sorted(n for part in seen.values() for n in part) == list(range(40))
    assert common.FIRST_DEVELOPMENT_SEED == 1000


def test_what_is_reported_has_reporting_seeds() -> None:
    ours = [protocol for table in results.COMPARISONS for protocol in table.protocols]
    for protocol in ours:
        last = protocol.first_seed + protocol.seeds
        assert FIRST <= protocol.first_seed < last <= common.FIRST_DEVELOPMENT_SEED
    for protocol in fig6.PROTOCOLS:
        assert min(protocol.numbers) >= 100 and max(protocol.numbers) < 1000


def test_figure_3_and_its_part_of_the_page(searched, tmp_path: Path) -> None:
    folder, rows = searched
    png, svg = fig3.draw(results=folder, images=tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    drawn = svg.read_text()
    assert all(arm.label in drawn for arm in fig3.arms())
    page = results.text(folder)
    assert "Medians over 2 seeds" in page and "(c) Samplers in the basis space, 10" in page
    assert "100 evaluations" not in page  # which these searches did not reach
    best = min(fig3.quartiles(rows, a.name, "late rise", 10)[1] for a in fig3.SAMPLERS)
    assert f"**{best:.4f} (" in page


# Page and figures ------------------------------------------------------------------------------


def test_the_page_is_written_and_found_stale(tmp_path: Path) -> None:
    write_made_up(tmp_path, tables=TABLES[:1])
    page = tmp_path / "docs" / "results.md"
    where = {"results": tmp_path, "page": page}
    results.write(**where, images=page.parent / "images" / "results")
    results.check(**where)
    written = page.read_text()
    assert results.text(tmp_path) == written
    assert "Not run yet: `python -m experiments fig6 --protocol mnist`." in written
    assert "Not run yet: `python -m experiments table4 --protocol paper`." in written
    (page.parent / "images" / "results" / "fig4-desk.svg").unlink()
    with pytest.raises(InputError, match=r"links images/results/fig4-desk\.svg"):
        results.check(**where)
    write_made_up(tmp_path, tables=TABLES[:1], seeds=2)
    with pytest.raises(InputError, match=r"results\.md is not current"):
        results.check(**where)


def test_check_exits_with_1(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        results.check, "__kwdefaults__", {"results": tmp_path, "page": tmp_path / "results.md"}
    )
    assert command.main(["results", "--check"]) == 1
    assert "run `python -m experiments results`" in capsys.readouterr().err
    (tmp_path / "results.md").write_text(results.text(tmp_path))
    assert command.main(["results", "--check"]) == 0


def test_nothing_to_draw_exits_with_2(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(fig4.draw, "__kwdefaults__", {"results": tmp_path, "images": tmp_path})
    assert command.main(["fig4", "--protocol", "paper"]) == 2
    assert "run `python -m experiments table4 --protocol paper` first" in capsys.readouterr().err


def test_without_a_name_the_items_are_listed(capsys) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = ["table4", "table5", "table6", "table7"]
    names = [
        "table1",
        "known_errors",
        "fig1",
        "fig3",
        "fig6",
        "experience",
        *tables,
        "fig4",
        "fig5",
        "fig7",
        "results",
    ]
    assert [line.split()[0] for line in lines[: len(names)]] == names


@pytest.mark.parametrize("module", [fig1, fig4, fig5, fig7], ids=lambda module: module.NAME)
def test_figures_are_png_and_svg(tmp_path: Path, module) -> None:
    write_made_up(tmp_path, tables=TABLES[:1])
    png, svg = module.draw("desk", results=tmp_path, images=tmp_path / "images")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ET.parse(svg).getroot().tag.endswith("svg")
    first = svg.read_bytes()
    module.draw("desk", results=tmp_path, images=tmp_path / "images")
    assert svg.read_bytes() == first


# The committed results -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "protocol", "go_on"),
    [
        *(
            pytest.param(
                table.name,
                "desk",
                partial(table.run, table.protocol("desk"), data="", runs=""),
                id=table.name,
            )
            for table in results.COMPARISONS
        ),
        pytest.param(
            "fig1",
            "desk",
            partial(fig1.run, fig1.get_protocol("desk"), data="", runs=""),
            id="fig1",
        ),
        pytest.param("fig3", "", fig3.run, id="fig3"),
        *(
            pytest.param(
                "fig6", protocol.name, partial(fig6.run, protocol, data=""), id=protocol.name
            )
            for protocol in fig6.PROTOCOLS
        ),
    ],
)
def test_committed_results_are_of_the_protocols_in_the_code(item, protocol, go_on) -> None:
    """An item refuses rows of another protocol; without seeds it only reads its file."""
    if read_results(item, protocol) is None:
        pytest.skip(f"not run yet: {common.command_of(item, protocol)}")
    assert go_on(seeds=0)


def test_committed_rows_of_figure_3_are_of_arms_in_the_code() -> None:
    """An arm that changes needs another name: its old rows would stay."""
    rows = read_results(fig3.NAME, fig3.PROTOCOL)["rows"]
    assert {row["arm"] for row in rows} <= {arm.name for arm in fig3.arms()}


def test_experiments_use_the_public_api_only() -> None:
    """Names of `keeprate`, or of a package's stub; modules inside packages are private."""
    root = Path(common.__file__).parents[1]
    files = [
        file
        for name in ("experiments", "benchmarks", "examples")
        for file in sorted((root / name).glob("*.py"))
    ]
    assert len(files) > 30
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name in imports_of(tree, file.stem):
            assert "." not in name, f"{file.name} imports keeprate.{name}"
