"""What a plan says of a search is what the search does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from torch import nn

import keeprate
from keeprate import InputError, SearchConfig
from keeprate.data import Rows
from keeprate.engine import get_method, make_setup
from keeprate.records.record import TrialCounts
from keeprate.searching import plan as plans
from keeprate.searching import search_run, timing
from keeprate.searching.timing import Price, Prices
from tests.searches import CONFIG, draw_no_page
from tests.test_cli import keeprate as command


@pytest.fixture(autouse=True)
def nothing_timed(monkeypatch: pytest.MonkeyPatch) -> Prices:
    """A machine on which a network's step takes 10 ms, and nothing else takes any time."""
    free = Price(0.0, 0.0)
    prices = Prices(free, free, Price(0.0, 0.01), CONFIG.batch_size, 359, 12)

    def measure(setup, method):
        return replace(prices, together=setup.lockstep or 12)

    monkeypatch.setattr(plans, "measure", measure)
    monkeypatch.setattr(search_run, "measure", measure)
    draw_no_page(monkeypatch)
    return prices


@pytest.mark.parametrize(
    "options",
    [
        {"budget": 2, "baselines": False, "restarts": 1},
        {"budget": "6.5"},
        {"budget": "3trials", "baselines": ["standard", "f-correction"], "restarts": 2},
        {"budget": "18trials", "restarts": 1, "baselines": False},
        {"budget": "18trials", "confirm": False, "restarts": 2, "baselines": False},
        {"budget": "16trials", "fidelity": 0.4, "baselines": False, "restarts": 1},
        {"budget": 4, "sampler": "random", "method": "jocor", "baselines": False},
        {"budget": "3trials", "warm_start": False, "epochs": 1, "lockstep": 2},
        {"budget": "40s", "baselines": False, "restarts": 1},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_a_plan_says_what_the_record_will_say(data, tmp_path, options):
    research = {"confirm", "fidelity", "sampler", "warm_start"} & options.keys()
    search_config = SearchConfig(**{name: options.pop(name) for name in research})
    config = replace(CONFIG, epochs=options.pop("epochs", 5))
    given = {"search_config": search_config, "config": config, "out": tmp_path / "run"} | options
    plan, totals = keeprate.plan_search(data, **given), {}
    assert not (tmp_path / "run").exists()

    def progress(stage, done, total, best):
        totals[stage] = total

    record = keeprate.search(data, progress=progress, **given).record
    assert plan.candidate_epochs == record.cost.candidate_epochs
    assert plan.full_trainings == record.cost.full_trainings and not plan.is_at_most
    assert plan.trials == record.trial_counts
    by_name = {}
    for stage in plan.stages:
        by_name[stage.name] = by_name.get(stage.name, 0) + stage.candidate_epochs
    first = 0 if record.first is None else record.first.epochs
    assert by_name.get("noise rate", 0) == first
    confirming = [trial for trial in record.trials if trial.confirms is not None]
    again = sum(len(trial.validation_score) for trial in confirming)
    assert by_name.get("confirming trials", 0) == again
    n_finals = sum(len(result.restarts) for result in record.results)
    assert plan.final_trainings == n_finals + 1  # the judges
    assert by_name["final trainings"] == totals["final training"] == n_finals * config.epochs
    assert by_name["judging labels"] == totals["judging labels"]
    peers = {stage.name: stage.n_networks for stage in plan.stages}["judging labels"]
    assert peers == 5


def test_a_time_buys_what_the_plan_says_it_takes(data, nothing_timed):
    options = {"config": CONFIG, "baselines": False, "restarts": 2}
    plan = keeprate.plan_search(data, budget="1m", **options)
    left = 60 - (plan.seconds - plans.AROUND)
    one = nothing_timed.of(plan.stages[1]) / plan.stages[1].trainings
    assert 0 <= left < one
    assert [stage.name for stage in plan.stages[:2]] == ["noise rate", "exploring trials"]
    with pytest.raises(InputError, match="leave time for the final trainings"):
        keeprate.plan_search(data, budget="2s", **options)


def test_a_pruner_may_make_it_less(data):
    options = {"config": CONFIG, "budget": "12trials", "baselines": False, "restarts": 1}
    options["search_config"] = SearchConfig(pruner="halving")
    plan, record = keeprate.plan_search(data, **options), keeprate.search(data, **options).record
    assert plan.is_at_most and plan.candidate_epochs > record.cost.candidate_epochs


def test_an_addition_is_planned_as_it_is_made(data, tmp_path):
    options = {"config": CONFIG, "budget": "3trials", "out": tmp_path / "run", "restarts": 2}
    before = keeprate.search(data, **options).record
    kept = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    plan = keeprate.plan_search(data, add_trials=14, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == kept
    assert [stage.name for stage in plan.stages] == [
        "exploring trials", "confirming trials", "final trainings", "judging labels",
    ]  # fmt: skip
    assert plan.stages[2].trainings == 2  # baselines stay
    after = keeprate.search(data, add_trials=14, **options).record
    assert plan.trials == after.added[-1] == TrialCounts(14, 4)
    costs = [record.cost.candidate_epochs for record in (before, after)]
    assert plan.candidate_epochs == costs[1] - costs[0]
    with pytest.raises(InputError, match=r"training\.epochs: 3 before, 4 now"):
        keeprate.plan_search(data, add_trials=1, **options | {"config": replace(CONFIG, epochs=4)})


def linear(input_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), n_classes))


def test_memory_and_disk_grow_with_what_is_there(data, tmp_path):
    options = {"config": CONFIG, "budget": 6, "baselines": False}
    plans_of = [keeprate.plan_search(data, lockstep=n, **options) for n in (1, 3)]
    few, more = (plan.network_bytes for plan in plans_of)
    assert more / few == pytest.approx(6 / 5)  # three candidates, not the judges alone
    splits = (data.train, data.validation, data.test)
    inputs = sum(split.inputs.nbytes for split in splits)
    assert inputs < plans_of[0].data_bytes < 4 * inputs
    train = replace(data.train, inputs=Rows(data.train.inputs))  # as if they lay in a file
    mapped = keeprate.plan_search(replace(data, train=train), lockstep=1, **options)
    assert plans_of[0].data_bytes - mapped.data_bytes == data.train.inputs.nbytes
    small = keeprate.plan_search(data, model=linear, **options)
    assert small.network_bytes < few and small.disk_bytes < plans_of[0].disk_bytes
    run = keeprate.search(data, out=tmp_path / "run", **options)
    size = sum(path.stat().st_size for path in run.folder.iterdir())
    assert size < plans_of[0].disk_bytes
    most, share = plans_of[0].majority
    assert data.class_counts[int(most)] == max(data.class_counts)
    assert share == pytest.approx((data.validation.labels == int(most)).double().mean().item())


def test_what_a_search_refuses_a_plan_refuses(data):
    for options, words in (
        ({"budget": "x"}, "budget must be"),
        ({"method": "standard"}, "select samples by R"),
        ({"trials": 40}, "write budget='40trials'"),
        ({"add_trials": 3}, "out must be the folder of a finished search"),
        ({"cluster": "auto"}, "cluster must be left out of a plan, got 'auto'; leave it out to"),
        ({"restarts": 0}, "restarts must be a whole number"),
    ):
        with pytest.raises(InputError, match=words):
            keeprate.plan_search(data, config=CONFIG, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        keeprate.plan_search(data, nothing=1)


def test_real_steps_have_a_price(data):
    plan = keeprate.plan_search(data, budget=2, config=CONFIG)
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None)
    prices = timing.measure(setup, get_method("co-teaching"))
    assert all(0 < prices.of(stage) < 60 for stage in plan.stages)


def test_the_command_says_what_a_search_takes_and_makes_no_folder(data, tmp_path, capsys):
    words = ["search", "digits", "--noise", "pairflip:0.4", "--epochs", 3, "--plan"]
    words += ["--budget", "20trials", "--pruner", "median", "--out", tmp_path / "run"]
    code, output = command(*words, capsys=capsys)
    shown = " ".join(output.out.split())
    assert code == 0 and list(tmp_path.iterdir()) == []
    for said in (
        "digits: 1,079 training, 359 validation", "exploring trials", "confirming trials",
        "search: at most 21 full trainings (63 candidate-epochs), 20 trials, of which 4 confirm; "
        "then 10 trainings", "time: at most about ", " on this machine", "memory: ", "disk: about ",
        "always '", "' would be right for ", " % of validation samples", "nothing was written",
    ):  # fmt: skip
        assert said in shown, said
    assert all(len(line) <= 80 or str(tmp_path) in line for line in output.out.splitlines())
    finished = keeprate.train(data, schedule="constant", config=CONFIG, out=tmp_path / "run")
    assert finished.folder is not None
    code, output = command(*words, capsys=capsys)
    shown = " ".join(output.out.split())
    assert code == 0 and "holds a finished run: a new search needs another folder" in shown
    assert "without --plan" not in shown
    code, output = command(*words, "--budget", "none", capsys=capsys)
    assert code == 2 and "budget must be" in output.err and "Traceback" not in output.err
    code, output = command(*words, "--cluster", "auto", capsys=capsys)
    assert code == 2 and "cluster must be left out of a plan" in output.err
