"""Data larger than memory: the same numbers from a file, decoded once, whole or absent."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import keeprate
from keeprate import mapped
from keeprate.data import Rows, load_data, prepare
from keeprate.data.rows import as_inputs, columns_of, joined
from keeprate.engine.checkpoints import save_tensors
from keeprate.errors import InputError
from keeprate.mapped import gathered, new_array
from keeprate.reading import images
from keeprate.records import Cost

N = 600


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; nothing is small enough for memory."""
    monkeypatch.setenv("KEEPRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "SHARE", 0.0)
    monkeypatch.setattr(mapped, "PIECE", 1 << 12)  # many pieces
    return tmp_path / "cache"


def columns() -> dict[str, list[object]]:
    """Numbers with blanks, a category, dates, and a label that is missing in some rows."""
    rng = np.random.default_rng(0)
    kind = np.arange(N) % 3
    number = rng.normal(size=N) + kind
    return {
        "a": number.round(4).tolist(),
        "b": [None if i % 11 == 3 else float(x) for i, x in enumerate(rng.normal(size=N).round(3))],
        "city": rng.choice(["Ulm", "Rome", "Bonn"], N).tolist(),
        "when": [f"2024-0{i % 9 + 1}-11" for i in rng.permutation(N).tolist()],
        "label": [None if i % 50 == 7 else f"kind {k}" for i, k in enumerate(kind.tolist())],
    }


def write_table(path: Path) -> Path:
    table = pa.table(columns())
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=170)
    else:
        rows = zip(*table.to_pydict().values(), strict=True)
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
        path.write_text("\n".join([",".join(table.column_names), *lines]) + "\n")
    return path


def write_images(folder: Path, *, odd: bool = False) -> Path:
    """Two classes of 30 pictures; `odd`: one of another size, and one that is damaged."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            height = 12 if odd and i == 3 else 9
            pixels = rng.integers(0, 255, (height, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    if odd:
        (folder / "dog" / "07.png").write_bytes((folder / "dog" / "07.png").read_bytes()[:90])
    return folder


def in_memory(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Read again, and not what the cache holds."""
    monkeypatch.setattr(mapped, "SHARE", 0.25)
    monkeypatch.setenv("KEEPRATE_CACHE", os.devnull)  # where no folder can be
    return monkeypatch


# The same numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("validation", ["auto", "noisy"])
def test_a_table_in_a_file_trains_to_the_same_weights_and_record(
    ending: str,
    validation: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, found = write_table(tmp_path / f"t{ending}"), {}
    for share in (0.25, 0.0):  # before the cache has it
        monkeypatch.setattr(mapped, "SHARE", share)
        data = prepare(path, validation=validation, n_test=60)
        assert isinstance(data.train.inputs, Rows) == (share == 0)
        config = keeprate.TrainingConfig(epochs=2, batch_size=50, device="cpu")
        run = keeprate.train(data, config=config)
        weights = [p.detach() for module in run.classifier.modules for p in module.parameters()]
        record = asdict(replace(run.record, cost=Cost(), results=(), noise_estimate=None))
        scores = [one.curves.validation_score for one in run.results]
        run.label_quality.save(tmp_path / "quality.csv", data.class_names)
        quality = (tmp_path / "quality.csv").read_bytes()
        found[share] = (weights, record, scores, quality, run.record.noise_estimate.noise_rate)
    assert all(map(torch.equal, found[0.0][0], found[0.25][0]))
    assert found[0.0][1:] == found[0.25][1:]


def test_images_in_a_file_are_those_in_memory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_AT_ONCE", 7)
    for odd, normalise in ((False, "auto"), (True, "auto"), (False, "none"), (False, "centred")):
        folder = write_images(tmp_path / f"odd {odd} {normalise}", odd=odd)
        loaded = load_data(folder, normalise=normalise)
        with monkeypatch.context() as context:
            expected = load_data(in_memory(context) and folder, normalise=normalise)
        split, other = loaded.splits["train"], expected.splits["train"]
        assert isinstance(split.inputs, Rows)
        assert len(split) == 60 - odd
        assert torch.equal(split.inputs[:], other.inputs[:])
        assert split.inputs.dtype == other.inputs.dtype
        again = load_data(folder, normalise=normalise)
        assert torch.equal(again.splits["train"].inputs[:], other.inputs[:])
        assert again.normalise == normalise
        assert (loaded.notes, split.names) == (expected.notes, other.names)


def test_clean_labels_and_a_matrix_of_them_need_no_memory_either(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way of cross-fitting: gold loss correction and refined labels for each network."""
    found = []
    for share in (0.0, 0.25):
        monkeypatch.setattr(mapped, "SHARE", share)
        data = prepare("digits", noise="pairflip:0.3", limit=150)
        config = keeprate.TrainingConfig(epochs=1, batch_size=50, device="cpu")
        run = keeprate.train(data, config=config)
        found.append((run.label_quality.scores, [one.curves.train_loss for one in run.results]))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


# Rows of a file ---------------------------------------------------------------------------------


def test_rows_are_what_a_tensor_is(cache: Path) -> None:
    array = new_array((50, 4), np.float32)
    array[...] = np.random.default_rng(0).normal(size=(50, 4))
    tensor, rows = torch.from_numpy(np.array(array)), as_inputs(array)
    assert isinstance(rows, Rows)
    assert (rows.shape, rows.dtype, rows.numel(), len(rows)) == (
        tensor.shape,
        tensor.dtype,
        200,
        50,
    )
    places = torch.tensor([3, 40, 7])
    part = rows.part(places)
    for index in (1, slice(1, 3), torch.tensor([2, 0])):
        assert torch.equal(part[index], tensor[places][index])
    both = joined(part, rows.part(torch.tensor([1])))
    assert isinstance(both, Rows)
    assert both.whole is rows.whole, "rows of one file were copied"
    assert torch.equal(both[:], tensor[[3, 40, 7, 1]])
    mixed = joined(part, tensor[:2])
    assert torch.equal(mixed[:], torch.cat([tensor[places], tensor[:2]]))
    sent = copy.deepcopy(part)  # as to a worker on another machine
    assert torch.equal(sent[:], part[:])
    assert sent.whole.data_ptr() != rows.whole.data_ptr()
    for ours, theirs in zip(columns_of(part), tensor[places].T, strict=True):
        assert np.array_equal(ours, theirs.numpy())


def test_mapped_arrays_of_a_user_are_read_as_any_array(tmp_path: Path, cache: Path) -> None:
    array = np.memmap(tmp_path / "file", np.float64, "w+", shape=(20, 6, 5, 3))
    array[...] = np.random.default_rng(0).normal(size=array.shape)
    inputs = load_data((array, [0, 1] * 10)).splits["train"].inputs
    assert (inputs.shape, inputs.dtype) == ((20, 3, 6, 5), torch.float32)
    array[3, 2, 1, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        load_data((array, [0, 1] * 10))


def test_what_is_taken_out_does_not_change_the_file(tmp_path: Path, cache: Path) -> None:
    path = write_table(tmp_path / "t.csv")
    load_data(path)
    inputs = load_data(path).splits["train"].inputs
    before = inputs[:3].clone()
    inputs[:3].zero_()
    inputs[0].zero_()
    assert torch.equal(inputs[:3].nan_to_num(), before.nan_to_num())
    assert before.nan_to_num().any()


def test_arrow_tables_in_a_file_are_those_in_memory(cache: Path) -> None:
    whole = pa.table({"x": np.arange(1000), "word": [str(i % 7) for i in range(1000)]})
    found = gathered((whole.slice(i, 90) for i in range(0, 1000, 90)), whole.schema)
    assert found.equals(whole)
    assert not list(cache.iterdir()), "the file was to have no name"


def test_a_checkpoint_written_piece_by_piece_is_a_safetensors_file(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.tensor([True, False, True]),
        "turned": torch.randn(4, 3).T,
        "count": torch.tensor(7),
        "half": torch.randn(5).bfloat16(),
        "none": torch.empty(0, 2),
    }
    save_tensors(tmp_path / "file", tensors, {"word": "né"})
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


# The cache --------------------------------------------------------------------------------------


def test_a_source_is_decoded_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "pictures")
    first = load_data(folder)
    monkeypatch.setattr(images, "decoder_of_plain", None)  # would fail
    again = load_data(folder)
    assert torch.equal(again.splits["train"].inputs[:], first.splits["train"].inputs[:])
    assert torch.equal(again.splits["train"].labels, first.splits["train"].labels)
    assert again.splits["train"].names == first.splits["train"].names
    assert replace(again, splits={}) == replace(first, splits={})


def test_a_changed_source_and_other_options_are_decoded_anew(tmp_path: Path, cache: Path) -> None:
    folder = write_images(tmp_path / "pictures")
    load_data(folder)
    Image.new("RGB", (9, 9), "white").save(folder / "cat" / "05.png")
    assert int(load_data(folder).splits["train"].inputs[5].min()) == 255
    assert load_data(folder, image_size=4).splits["train"].inputs.shape[2:] == (4, 4)
    table = write_table(tmp_path / "t.csv")
    assert load_data(table).splits["train"].inputs.shape[1] == 4
    assert load_data(table, inputs=["a", "b"]).splits["train"].inputs.shape[1] == 2


def test_what_another_version_decoded_is_decoded_anew_in_its_place(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_table(tmp_path / "t.csv")
    load_data(path)
    caplog.clear()
    load_data(path)
    assert not caplog.text
    monkeypatch.setattr("keeprate.data.decoded.FORMAT", [1, "0.0.9"])
    load_data(path)
    assert "decoded to" in caplog.text
    (entry,) = [one for one in cache.iterdir() if one.is_dir()]
    assert entry.stat().st_mode & 0o077 == 0, "others may read what the source may not show them"


@pytest.mark.parametrize("kind", ["list.csv", "rows.parquet", "links"])
def test_images_that_lie_elsewhere_are_part_of_the_source(
    kind: str, tmp_path: Path, cache: Path
) -> None:
    folder = write_images(tmp_path / "pictures")
    names = [f"{name}/{i:02}.png" for name in ("cat", "dog") for i in range(30)]
    labels = [name[:3] for name in names]
    source = folder / kind
    if kind == "list.csv":
        lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        source.write_text("\n".join(["image,label", *lines]))
    elif kind == "rows.parquet":
        encoded = [{"bytes": None, "path": name} for name in names]
        image = pa.array(encoded, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        pq.write_table(pa.table({"image": image, "label": labels}), source)
    else:
        source = tmp_path / "links"
        source.mkdir()
        for name in ("cat", "dog"):
            (source / name).symlink_to(folder / name)
    load_data(source)
    Image.new("RGB", (9, 9), "white").save(folder / "cat" / "05.png")
    assert int(load_data(source).splits["train"].inputs[5].min()) == 255


def test_a_file_that_took_the_place_of_another_of_its_size_and_time_is_read(
    tmp_path: Path, cache: Path
) -> None:
    path = write_table(tmp_path / "t.csv")
    load_data(path)
    before = path.stat()
    path.write_text(path.read_text().replace("kind 1", "kind 7"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` does
    assert path.stat().st_size == before.st_size
    assert "kind 7" in load_data(path).class_names


@pytest.mark.parametrize("file", ["train.inputs", "rest.safetensors", "index.json"])
def test_a_damaged_entry_is_decoded_again(
    file: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_table(tmp_path / "t.csv")
    expected = load_data(path).splits["train"]
    (entry,) = [one for one in cache.iterdir() if one.is_dir()]
    content = bytearray((entry / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (entry / file).unlink()  # the first reading still maps it
    (entry / file).write_bytes(content)
    caplog.clear()
    found = load_data(path).splits["train"]
    assert "is damaged" in caplog.text
    assert torch.equal(found.inputs[:].nan_to_num(), expected.inputs[:].nan_to_num())
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("kind", ["of one size", "of two sizes"])
def test_a_stopped_decoding_goes_on_and_leaves_nothing_half_written(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "pictures")
    if kind == "of two sizes":  # the first ones are the smallest
        for path in sorted(folder.rglob("*.png"))[10:]:
            Image.open(path).resize((12, 12)).save(path)
    monkeypatch.setattr(images, "_AT_ONCE", 5)
    monkeypatch.setattr(images, "_SAVED_EVERY", 0.0)
    decoded: list[object] = []

    def stop(stage: str, done: int, total: int, best: str | None) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    def counted(decode):  # type: ignore[no-untyped-def]
        def count(*what: object):  # type: ignore[no-untyped-def]
            decoded.append(what)
            return decode(*what)

        return count

    with pytest.raises(KeyboardInterrupt):
        load_data(folder, progress=stop)
    assert not [one for one in cache.iterdir() if not one.name.startswith(".")]
    plain = images.decoder_of_plain
    with monkeypatch.context() as context:
        context.setattr(images, "decoder_of_plain", lambda layout: counted(plain(layout)))
        context.setattr(images, "decode", counted(images.decode))
        if kind == "of one size":  # what is begun has its room already
            context.setattr(mapped, "ROOM_LEFT", 2**60)
        found = load_data(folder).splits["train"]
    assert 0 < len(decoded) <= 60 - 15, "what was decoded before was to stay"
    with monkeypatch.context() as context:
        expected = load_data(in_memory(context) and folder).splits["train"]
    assert torch.equal(found.inputs[:], expected.inputs[:])


def test_no_file_is_made_for_the_size_of_a_first_photograph(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_images(tmp_path / "pictures")
    Image.new("RGB", (90, 90)).save(folder / "cat" / "00.png")
    assert load_data(folder).splits["train"].inputs.shape[2:] == (9, 9)
    assert caplog.text.count("decoded to") == 1


def test_a_kill_after_the_decoding_of_damaged_images_moves_none_of_them_twice(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "pictures", odd=True)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("keeprate.data.image_folders.Labels", killed)
        with pytest.raises(KeyboardInterrupt):
            load_data(folder)
    found = load_data(folder).splits["train"]
    with monkeypatch.context() as context:
        expected = load_data(in_memory(context) and folder).splits["train"]
    assert torch.equal(found.inputs[:], expected.inputs[:])


def test_the_size_on_disk_is_told_and_a_full_disk_refused(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_images(tmp_path / "pictures")
    with caplog.at_level(logging.WARNING):
        load_data(folder)
    assert "60 images" in caplog.text
    assert f"decoded to 14.6 kB in {cache}" in caplog.text
    monkeypatch.setattr(mapped, "ROOM_LEFT", 2**60)
    table = write_table(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet must fit into memory or on the disk of .*"
                                         r"set KEEPRATE_CACHE"):  # fmt: skip
        load_data(table)


def test_what_cannot_be_kept_serves_the_run_all_the_same(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = write_table(tmp_path / "t.csv")
    expected = load_data(table).splits["train"].inputs[:]
    (entry,) = [one for one in cache.iterdir() if one.is_dir()]
    shutil.rmtree(entry)
    entry.write_text("in the way")
    assert torch.equal(load_data(table).splits["train"].inputs[:].isnan(), expected.isnan())
    assert "is not kept for other runs" in caplog.text


def test_small_data_leave_no_trace(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "SHARE", 0.25)
    prepare(write_table(tmp_path / "t.csv"))
    load_data(write_images(tmp_path / "pictures", odd=True))
    assert not cache.exists()


def test_small_data_need_no_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, closed = write_table(tmp_path / "t.csv"), tmp_path / "closed"
    closed.mkdir(mode=0)
    monkeypatch.setenv("KEEPRATE_CACHE", str(closed / "cache"))
    assert len(load_data(table).splits["train"]) == 588
    for name in ("KEEPRATE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user whom the system does not know
    assert len(load_data(table).splits["train"]) == 588
    monkeypatch.setattr(mapped, "SHARE", 0.0)
    with pytest.raises(InputError, match="set KEEPRATE_CACHE to another folder"):
        load_data(table)


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KEEPRATE_CACHE", raising=False)
    assert mapped.cache_folder() == tmp_path / "keeprate"
    monkeypatch.setenv("KEEPRATE_CACHE", str(tmp_path / "here"))
    assert mapped.cache_folder() == tmp_path / "here"
