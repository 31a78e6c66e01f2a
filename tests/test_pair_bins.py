"""`.bin` files of every protocol, and those that would run code."""

from __future__ import annotations

import os
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.limits import LIMIT_VARIABLE
from keeprate.reading import read_pair_bin
from keeprate.verification import load_pairs
from tests.test_pair_lists import OTHER, SAME, check, encoded

EXPECTED = [*SAME[:6], *OTHER[:6]]
IMAGES = [encoded(key) for pair in EXPECTED for key in pair]
FLAGS = [a[0] == b[0] for a, b in EXPECTED]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "lfw.bin"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("outer", [tuple, list])
def test_every_protocol_of_python_3(tmp_path: Path, protocol: int, outer: type) -> None:
    path = write(tmp_path, pickle.dumps(outer((IMAGES, FLAGS)), protocol))
    pairs = load_pairs(path)
    check(pairs, EXPECTED)  # each picture once
    assert (pairs.folds, pairs.people, pairs.name) == (None, (), "lfw")


def put(place: int) -> bytes:
    return b"q" + bytes([place])


def old_string(content: bytes) -> bytes:
    """As Python 2 writes a str in protocol 2: SHORT_BINSTRING or BINSTRING."""
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content


def of_python_2(protocol: int) -> bytes:
    """`cPickle.dump((bins, issame_list), f, protocol)` of Python 2, by hand."""
    if protocol == 2:
        images = b"".join(old_string(image) + put(2 + n) for n, image in enumerate(IMAGES))
        flags = b"".join(b"\x88" if flag else b"\x89" for flag in FLAGS)
        lists = b"]" + put(0) + b"(" + images + b"e" + b"]" + put(1) + b"(" + flags + b"e"
        return b"\x80\x02" + lists + b"\x86" + put(200) + b"."
    images = b"".join(
        b"S" + repr(image)[1:].encode() + b"\np%d\na" % (2 + n) for n, image in enumerate(IMAGES)
    )
    flags = b"".join(b"I01\na" if flag else b"I00\na" for flag in FLAGS)
    return b"((lp0\n" + images + b"(lp1\n" + flags + b"tp200\n."


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_strings_of_python_2(tmp_path: Path, protocol: int) -> None:
    content = of_python_2(protocol)
    assert pickle.loads(content, encoding="bytes") == (IMAGES, FLAGS)  # as such files are read
    check(load_pairs(write(tmp_path, content)), EXPECTED)


def test_bytearrays_numbers_and_shared_pictures(tmp_path: Path) -> None:
    images = [bytearray(image) for image in IMAGES[:4]]
    shared = IMAGES[0]
    content = pickle.dumps(([*images, shared, shared], [1, 0, True]), 5)
    found = read_pair_bin(write(tmp_path, content))
    assert found.images == [*IMAGES[:4], shared, shared]
    assert found.same == [True, False, True]


# Hostile files


class Call:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Plain:
    pass


MARKER = "executed"
RUN = f"touch {MARKER}".encode()
HOSTILE = {
    "global": b"cos\nsystem\n(S'" + RUN + b"'\ntR.",
    "builtins": b'c__builtin__\neval\n(S\'__import__("os").mkdir("executed")\'\ntR.',
    "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"
    + bytes([len(RUN)])
    + RUN
    + b"\x85R.",
    "inst": b"(S'" + RUN + b"'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'" + RUN + b"'\no.",
    "newobj": b"\x80\x02cos\nsystem\nU" + bytes([len(RUN)]) + RUN + b"\x85\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\nU" + bytes([len(RUN)]) + RUN + b"\x85}\x92.",
    "build": b"\x80\x02c__main__\nPlain\n)\x81}(U\x01aU\x01bub.",
    "ext1": b"\x80\x02\x82\x01.",
    "ext4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "persid": b"P" + RUN + b"\n.",
    "binpersid": b"U\x01aQ.",
    "encode_other": b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    "encode_itself": b"c_codecs\nencode\n(c_codecs\nencode\nVlatin1\ntR.",
    "encode_bytes": b"\x80\x03c_codecs\nencode\nC\x01a\x85R.",
    "decode": b"c_codecs\ndecode\n(Vabc\nVlatin1\ntR.",
    "call_of_text": b"Vos.system\nVabc\nVlatin1\n\x86R.",
    "reduce_of_text": b"(Vos.system\n(Vabc\ntR.",
    "dict": b"}.",
    "set": b"\x80\x04\x8f.",
    "buffer": b"\x80\x05\x97.",
    "numpy": pickle.dumps((IMAGES, np.array(FLAGS)), 2),
    "numpy_4": pickle.dumps((IMAGES, np.array(FLAGS)), 4),
    "float": pickle.dumps(([1.5, 1.5], [True])),
    "none": pickle.dumps(([None, None], [True])),
    "long": pickle.dumps((IMAGES[:2], [2**80])),
    **{
        f"call_{protocol}": pickle.dumps((IMAGES, [Call(os.system, RUN.decode())]), protocol)
        for protocol in range(6)
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_data_is_refused_and_runs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    path = write(tmp_path, HOSTILE[name])
    with pytest.raises(InputError, match=r"the opcode [A-Z0-9_]+.* at byte \d+; such a pickle"):
        read_pair_bin(path)
    assert set(os.listdir(tmp_path)) == before | {"lfw.bin"}


def test_the_hostile_files_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: `pickle.load` makes the file."""
    for name in ("global", "builtins", "stack_global", "inst", "obj", "call_0", "call_4"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        pickle.loads(HOSTILE[name])
        assert (folder / MARKER).exists(), name


def test_the_message_names_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GLOBAL 'posix system' at byte"):
        read_pair_bin(write(tmp_path, HOSTILE["call_2"]))
    long = b"c" + b"a" * 10_000 + b"\nb\n."
    with pytest.raises(InputError) as caught:
        read_pair_bin(write(tmp_path, long))
    assert len(str(caught.value)) < 600


WHOLE = pickle.dumps((IMAGES[:2], [True]), 4)
DAMAGED = {
    "empty": b"",
    "half": WHOLE[: len(WHOLE) // 2],
    "without_stop": WHOLE[:-1],
    "unknown_opcode": b"\x80\x04\xff.",
    "huge_bytes": b"\x80\x03B\xff\xff\xff\x7fabc.",
    "huge_bytes8": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "huge_unicode": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.",
    "huge_bytearray": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fabc.",
    "negative_string": b"T\xff\xff\xff\xffabc.",
    "huge_frame": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "no_memo": b"g7\n.",
    "huge_memo": b"]r\xff\xff\xff\xff(j\x00\x00\x00\x00e.",
    "no_stack": b"a.",
    "no_mark": b"t.",
    "nothing_left": b".",
    "too_much_left": b"]].",
    "append_to_text": b"\x80\x03C\x01aC\x01ba.",
    "mark_is_no_value": b"(\x85.",
    "string_without_end": b"S'abc\n.",
    "string_without_line": b"S'abc'",
    "string_of_odd_escapes": b"S'\\x0'\n.",
    "odd_text": b"V\\U99999999\n.",
    "odd_number": b"I1x\n.",
    "long_number": b"I" + b"9" * 10_000 + b"\n.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, DAMAGED[name])
    with pytest.raises(InputError, match=r"could not be read|must hold"):
        read_pair_bin(path)


SHAPES: dict[str, Any] = {
    "one_image_less": (IMAGES[:3], [True, False]),
    "no_pairs": ([], []),
    "text": (["a", "b"], [True]),
    "nested": ([IMAGES[:1], IMAGES[1:2]], [True]),
    "numbers": (IMAGES[:2], [2]),
    "three": (IMAGES[:2], [True], []),
    "images_alone": IMAGES[:2],
    "swapped": ([True], IMAGES[:2]),
    "a_number": 7,
}


@pytest.mark.parametrize("name", SHAPES)
def test_other_data_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must"):
        read_pair_bin(write(tmp_path, pickle.dumps(SHAPES[name], 4)))


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image in row 1"):
        load_pairs(write(tmp_path, pickle.dumps(([IMAGES[0], b"none"], [True]), 4)))
    with pytest.raises(InputError, match=r"left out for a \.bin file"):
        load_pairs(write(tmp_path, WHOLE), images=tmp_path)


def test_bombs_take_neither_memory_nor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.process_time()
    deep = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    # Each list holds the one before twice: 2**100 values, if anybody unfolded them.
    laughs = (
        b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(100)) + b"\x86."
    )
    marks = b"\x80\x04" + b"(" * 200_000 + b"."
    itself = b"\x80\x02]q\x00h\x00ah\x00\x86."
    for content in (deep, laughs, marks, itself):
        with pytest.raises(InputError):
            read_pair_bin(write(tmp_path, content))
    # One text of a megabyte, encoded ten thousand times.
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    start_of = (
        b"\x80\x02](" + b"c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02"
    )
    again = b"h\x00h\x01h\x02\x86R" * 10_000
    monkeypatch.setenv(LIMIT_VARIABLE, str(2**25))
    with pytest.raises(InputError, match="fit into memory"):
        read_pair_bin(write(tmp_path, start_of + again + b"e]\x86."))
    with pytest.raises(InputError, match="hold at most"):
        read_pair_bin(write(tmp_path, b"\x80\x04" + b"]" * 2**25))
    assert time.process_time() - start < 30


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_words(tmp_path_factory: Any, content: bytes) -> None:
    path = write(tmp_path_factory.mktemp("random"), content)
    with pytest.raises(InputError):
        read_pair_bin(path)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_a_pair_or_an_error(
    tmp_path_factory: Any, place: int, value: int
) -> None:
    content = WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :]
    path = write(tmp_path_factory.mktemp("changed"), content)
    try:
        found = read_pair_bin(path)
    except InputError:
        return
    assert len(found.images) == 2 * len(found.same)
