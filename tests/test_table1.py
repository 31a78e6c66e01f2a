"""Table 1: who is in which group, which names become wrong, and the rows and lines of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import faces_page, table1
from experiments.faces import (
    People,
    draw_pairs,
    load_people,
    make_faces,
    most_similar,
    with_strangers,
)
from experiments.known_errors import load_faces
from keeprate import InputError
from keeprate.files import write_json
from tests.people import faces

N_PEOPLE, N_PICTURES = 12, 10
SMALL = replace(
    table1.get_protocol("own"), model="face-small", side=16, trials=2, batch_size=20, n_pairs=60
)

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder a person; a list of pairs of three other people beside it."""
    place = tmp_path_factory.mktemp("faces")
    inputs, labels = faces(N_PEOPLE + 3, N_PICTURES, seed=4)
    for row, person in enumerate(labels.tolist()):
        group = "train" if person < N_PEOPLE else "test"
        path = place / group / f"person{person:02}" / f"{row % N_PICTURES}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inputs[row, 0].numpy()).save(path)
    lines = ["path_a,path_b,same"]
    for i in range(N_PICTURES - 1):
        lines.append(f"person12/{i}.png,person12/{i + 1}.png,1")
        lines.append(f"person13/{i}.png,person14/{i + 1}.png,0")
    (place / "pairs.csv").write_text("\n".join(lines))
    return place


@pytest.fixture(scope="module")
def people(folder) -> People:
    return load_people(folder / "train", 16)


@pytest.fixture(scope="module")
def sources(folder) -> table1.Sources:
    return table1.Sources(str(folder / "train"), str(folder / "pairs.csv"), str(folder / "test"))


def owner(people: People, image: torch.Tensor) -> str:
    """Whose picture it is, by its pixels."""
    row = int((people.images == image).flatten(1).all(1).nonzero()[0, 0])
    return people.names[int(people.labels[row])]


@pytest.mark.parametrize("noise", ["symmetric:0.4", "similar:0.4", "strangers:0.3"])
def test_nobody_is_in_two_groups_and_the_share_of_wrong_names_is_as_asked(people, sources, noise):
    test = table1._test_pairs(sources, 16)
    made = make_faces(people, test, noise=noise, seed=5, n_pairs=60)
    train, held_out = made.data.train, made.data.validation
    on_train = {owner(people, image) for image in (*train.inputs, *held_out.inputs)}
    assert len(train) + len(held_out) > 30
    assert not on_train & set(made.validation.people)
    assert set(made.data.class_names) <= on_train
    strangers = on_train - set(made.data.class_names)
    assert bool(strangers) == noise.startswith("strangers")
    true, rate = train.true_labels, float(noise.partition(":")[2])
    wrong = (train.labels != true).float().mean()
    assert abs(float(wrong) - rate) < 0.12
    for image, label in zip(train.inputs, true.tolist(), strict=True):
        name = owner(people, image)
        assert (name in strangers) if label < 0 else (name == made.data.class_names[label])
    assert held_out.true_labels is None and held_out.label_status == "noisy"
    again = make_faces(people, test, noise=noise, seed=5, n_pairs=60)
    assert again.data.fingerprint() == made.data.fingerprint()
    assert again.validation.fingerprint() == made.validation.fingerprint()
    other = make_faces(people, test, noise=noise, seed=6, n_pairs=60)
    assert other.data.fingerprint() != made.data.fingerprint()


def test_drawn_pairs_are_half_of_one_person_and_every_person_is_as_likely(people):
    kept = people.part(np.arange(4))
    many = People(
        torch.cat([kept.images, kept.images[kept.labels == 0]]),
        torch.cat([kept.labels, torch.zeros(N_PICTURES, dtype=torch.int64)]),
        kept.names,
    )
    pairs = draw_pairs(many, 800, np.random.default_rng(0))
    assert int(pairs.same.sum()) == 400
    first = [pairs.people[row] for row in pairs.first[pairs.same].tolist()]
    counts = [first.count(name) for name in kept.names]
    assert min(counts) > 70, counts  # a person with twice the pictures has no more pairs
    named = [pairs.people[row] for row in pairs.second.tolist()]
    told = [pairs.people[row] for row in pairs.first.tolist()]
    assert [a == b for a, b in zip(told, named, strict=True)] == pairs.same.tolist()


def test_the_most_similar_person_is_by_their_mean_pictures():
    base = torch.tensor([[0.0, 0, 0, 200], [0, 0, 20, 200], [200, 0, 0, 0], [200, 20, 0, 0]])
    images = base.view(4, 1, 2, 2).repeat_interleave(2, 0).to(torch.uint8)
    people = People(images, torch.arange(4).repeat_interleave(2), tuple("abcd"))
    assert most_similar(people) == {0: 1, 1: 0, 2: 3, 3: 2}


def test_few_strangers_leave_fewer_known_pictures_so_that_the_share_is_kept(people):
    known, strangers = people.part(np.arange(9)), people.part(np.array([9]))
    mixed, true = with_strangers(known, strangers, 0.25, np.random.default_rng(0))
    assert len(mixed.labels) == 40
    assert int((true < 0).sum()) == 10


def test_rows_of_all_methods_and_their_lines(sources, tmp_path):
    protocol = replace(SMALL, epochs=4, noises=("symmetric:0.4",))
    options = {"data": "", "runs": str(tmp_path), "given": sources, "results": tmp_path}
    rows = table1.run(protocol, seeds=1, **options)
    assert [row["name"] for row in rows] == list(table1.LABELS)
    for row in rows:
        assert list(row["curves"]["test"]) == [1, 2, 3, 4]
        assert row["last"]["test"] == row["curves"]["test"][4]
        assert row["best"]["test"] == max(row["curves"]["test"].values())
        assert 0.3 <= row["last"]["test"] <= 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["standard"]["keep_rate"] == [1.0] * 4
    assert by_name["proposed"]["cost"]["search_seconds"] > 0
    assert 0 < by_name["proposed"]["label_issues"]["average_precision"] <= 1
    assert table1.run(protocol, seeds=1, **options) == json_like(rows)  # nothing is left to run
    with pytest.raises(InputError, match="holds rows of another protocol"):
        table1.run(protocol, seeds=1, **options | {"given": replace(sources, images="elsewhere")})
    lines = "\n".join(faces_page._of_protocol({"protocol": protocol.as_row(), "rows": rows}, "own"))
    assert "| Proposed |" in lines and "symmetric 40 %, best" in lines
    with pytest.raises(InputError, match="--train and --pairs must be given for the protocol own"):
        table1.run(protocol, data="", runs=str(tmp_path), seeds=1, results=tmp_path)


def test_names_as_they_are_and_several_lists_of_pairs(sources, tmp_path):
    protocol = replace(SMALL, epochs=2)
    other = Path(sources.pairs).with_name("others.csv")
    other.write_text(Path(sources.pairs).read_text().replace("person13", "person12"))
    several = replace(sources, pairs=(sources.pairs, str(other)), images=(sources.images,))
    options = {"data": "", "runs": str(tmp_path), "given": several, "results": tmp_path}
    rows = table1.run(protocol, seeds=1, **options)
    for found in rows:
        assert found["noise_rate"] is None and found["curves"]["label_precision"] is None
        assert list(found["last"]["by_list"]) == ["pairs", "others"]
        mean = sum(found["last"]["by_list"].values()) / 2
        assert found["last"]["test"] == pytest.approx(mean)
    assert "label_issues" not in rows[-1]
    lines = "\n".join(faces_page._of_protocol({"protocol": protocol.as_row(), "rows": rows}, "own"))
    assert "names as they are, best" in lines and "Wrong names found" not in lines
    with pytest.raises(InputError, match="--images must name one folder, or one for each"):
        table1._test_pairs(replace(several, images=("a", "b", "c")), 16)


def test_nobody_may_be_in_the_training_and_in_the_test(people, sources):
    test = table1._test_pairs(sources, 16)[0]
    known = replace(test, people=(people.names[0],) * len(test.images))
    with pytest.raises(InputError, match="the pairs pairs must show nobody of --train, got 1"):
        make_faces(people, (known,), noise="symmetric:0.4", seed=0, n_pairs=60)


def json_like(rows: list[dict]) -> list[dict]:
    return json.loads(json.dumps(rows))


def row(name: str, test: float, seed: int) -> dict:
    return {"noise": "similar:0.4", "seed": seed, "name": name, "last": {"test": test}}


@pytest.mark.parametrize(
    ("proposed", "words"),
    [
        ((0.8, 0.9), "a similar person 40 %: best"),
        ((0.7, 0.8), "a similar person 40 %: within a deviation of Co-teaching"),
        ((0.6, 0.7), "a similar person 40 %: **below Co-teaching**"),
    ],
)
def test_the_verdict_goes_by_the_best_rival_and_its_deviation(proposed, words):
    rows = [row("proposed", value, seed) for seed, value in enumerate(proposed)]
    rows += [row("co-teaching", value, seed) for seed, value in enumerate((0.75, 0.85))]
    rows += [row("standard", 0.5, 0)]
    assert words in faces_page._verdict(rows, ["similar:0.4"])


def test_the_paper_s_numbers_are_there():
    assert table1.paper_rows()["Proposed"] == {
        "CALFW": 92.04,
        "CPLFW": 89.43,
        "AgeDB": 95.22,
        "CFP": 96.16,
        "average": 93.2,
    }


def test_the_known_errors_are_told_by_their_ranks(tmp_path):
    assert "not run yet" in "\n".join(faces_page._known_errors(tmp_path))
    rows = [
        {"seed": seed, "ranks": {"a.jpg": 3 + seed}, "judged": 4324, "listed": 80, "cost": cost}
        for seed, cost in enumerate(({"final_seconds": 3600.0}, {"final_seconds": 0.0}))
    ]
    write_json(tmp_path / "known_errors.json", {"protocol": {}, "rows": rows})
    words = " ".join("\n".join(faces_page._known_errors(tmp_path)).split())
    assert "a.jpg 3, 4." in words and "4,324 names" in words and "1.0 hours" in words


@pytest.mark.realdata
def test_the_known_errors_are_found_in_lfw():
    folder = Path(os.environ.get("KEEPRATE_DATA", "")) / "lfw"
    if not os.environ.get("KEEPRATE_DATA") or not folder.is_dir():
        pytest.skip("KEEPRATE_DATA names no folder with lfw/")
    data, known = load_faces(folder, seed=1000)
    assert (len(data.train) + len(data.validation), data.n_classes) == (4324, 158)
    by_row = {int(row): split for split in (data.train, data.validation) for row in split.rows}
    for row, name in known.items():
        split = by_row[row]
        place = split.rows.tolist().index(row)
        person = data.class_names[int(split.labels[place])]
        assert name.startswith(person)
    assert sorted(known.values())[0] == "Mahmoud_Abbas_0012.jpg" and len(known) == 3
