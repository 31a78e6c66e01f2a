"""`.bin` files of pairs of faces: a pickle of encoded images and booleans, read as data alone.

The face community passes LFW, CFP, AgeDB-30, CALFW and CPLFW around as `lfw.bin` and so on. Such a
file is a pickle of `(images, same)`: 2P encoded images, of which the two of a pair follow each
other, and P booleans. A pickle is a program, and `pickle.load` would run it. Here a machine that
knows lists, tuples, bytes, texts, booleans and whole numbers walks through it; whatever else the
program asks for is refused. Nothing is imported or called.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, damaged, invalid
from keeprate.files import read_bytes
from keeprate.limits import check_size, read_limit
from keeprate.text import cut

_OPCODES = {one.code: one for one in pickletools.opcodes}
_WITHOUT_EFFECT = ("PROTO", "FRAME")
# What stands in the file itself. pickletools gives Python 2's strings as text of Latin-1.
_BYTES = ("STRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_OLD_BYTES = ("BINSTRING", "SHORT_BINSTRING")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2")
_FLAGS = {"NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
# Python 3 writes bytes like this for the protocols 0 to 2, which have no opcode for them.
_ENCODE, _LATIN = "_codecs encode", ("latin1", "latin-1")


@dataclass(frozen=True)
class PairBin:
    """What a `.bin` file holds.

    Attributes
    ----------
    images : list of 2P bytes
        Encoded; the two of a pair follow each other.
    same : list of P bool
        Whether a pair shows one person.
    """

    images: list[bytes]
    same: list[bool]


def read_pair_bin(path: Path) -> PairBin:
    """Read a `.bin` file of pairs, of any protocol of Python 2 or 3.

    Parameters
    ----------
    path : Path

    Returns
    -------
    PairBin

    Raises
    ------
    InputError
        If the file is damaged, asks for anything but lists, tuples, bytes and booleans, or its
        images are not two for each boolean.
    """
    content = read_bytes(path, read_limit())
    machine = _Machine(path)
    try:
        for name, argument, place in _operations(content):
            machine.step(name, argument, place)
        return _as_pairs(machine.result(), path)
    except InputError:
        raise
    # IndexError and KeyError: nothing is on the stack, or nothing was kept under this number.
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise damaged(path, error) from error


def _operations(content: bytes) -> Iterator[tuple[str, Any, int]]:
    """The name, the argument and the place of each opcode before STOP.

    As `pickletools.genops`, which takes the strings of Python 2's protocol 0 for ASCII.
    """
    file = io.BytesIO(content)
    while True:
        place = file.tell()
        operation = _OPCODES.get(file.read(1).decode("latin-1"))
        if operation is None:
            raise ValueError(f"there is no opcode at byte {place}")
        if operation.name == "STOP":
            return
        argument = None
        if operation.name == "STRING":
            argument = _old_string(file.readline())
        elif operation.arg is not None:
            argument = operation.arg.reader(file)
        yield operation.name, argument, place


def _old_string(line: bytes) -> bytes:
    """The bytes that Python 2 has written as `'...'` with escapes, and a line feed."""
    text, end = line[:-1].strip(), line[-1:]
    if end != b"\n" or len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("a string has no end")
    return codecs.escape_decode(text[1:-1])[0]


class _Encode:
    """Stands on the stack for the one function that is known; it is never called."""


_MARK = object()


class _Machine:
    """A stack machine for pickles that are data."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0  # bytes that were made from text
        self._most = read_limit()

    def result(self) -> Any:
        """What is left on the stack at the end."""
        if len(self._stack) != 1:
            raise ValueError("it ends with more or less than one value")
        return self._stack[0]

    def step(self, name: str, argument: Any, place: int) -> None:
        """Do what an opcode says, or raise an InputError."""
        stack = self._stack
        if name in _WITHOUT_EFFECT:
            return
        if name in _BYTES:
            stack.append(bytes(argument))
        elif name in _OLD_BYTES:
            stack.append(argument.encode("latin-1"))
        elif name in _TEXTS or name in _NUMBERS:
            stack.append(argument)
        elif name in _FLAGS:
            stack.append(_FLAGS[name])
        elif name in _TUPLES:
            self._make_tuple(_TUPLES[name])
        elif name in ("TUPLE", "LIST"):
            items = self._pop_to_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            self._marks.append(len(stack))
            stack.append(_MARK)
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._pop_to_mark()
            self._extend(items)
        elif name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name == "GLOBAL" and argument == _ENCODE:
            stack.append(_Encode)
        elif name == "REDUCE":
            self._encode(place)
        else:
            raise self._refused(name, argument, place)

    def _make_tuple(self, length: int) -> None:
        items = tuple(self._stack[len(self._stack) - length :]) if length else ()
        if len(items) < length or _MARK in items:
            raise IndexError("the stack is too short")
        del self._stack[len(self._stack) - length :]
        self._stack.append(items)

    def _pop_to_mark(self) -> list[Any]:
        place = self._marks.pop()
        items = self._stack[place + 1 :]
        if self._stack[place] is not _MARK:
            raise IndexError("the stack is too short")
        del self._stack[place:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("it puts values into something that is no list")
        target.extend(items)

    def _encode(self, place: int) -> None:
        """Make bytes of a text, as `_codecs.encode(text, "latin1")` would; refuse other calls."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if function is not _Encode:
            raise self._refused("REDUCE", type(function).__name__, place)
        match arguments:
            case (str(text), str(encoding)) if encoding in _LATIN:
                # A short program may encode one long text again and again.
                self._encoded += len(text)
                remedy = "check where it comes from"
                check_size(str(self._path), self._encoded, remedy, most=self._most)
                self._stack.append(text.encode("latin-1"))
            case _:
                raise self._refused("REDUCE", _ENCODE, place)

    def _refused(self, name: str, argument: object, place: int) -> InputError:
        asked = f" {cut(repr(argument), 80)}" if argument is not None else ""
        received = Words(f"the opcode {name}{asked} at byte {place}")
        requirement = "hold nothing but a list of encoded images and a list of booleans"
        remedy = "such a pickle could run any code, and was not run: get the list and its pictures"
        return invalid(str(self._path), requirement, received, remedy)


def _as_pairs(value: Any, path: Path) -> PairBin:
    images, same = _two_lists(value, path)
    for name, items in (("images", images), ("booleans", same)):
        wanted = bytes if name == "images" else (bool, int)
        odd = next((item for item in items if not isinstance(item, wanted)), None)
        if odd is not None or (name == "booleans" and not set(items) <= {0, 1}):
            received = Words("other numbers" if odd is None else type(odd).__name__)
            raise invalid(f"the {name} of {path}", f"be {name}", received, "write them again")
    if not same or len(images) != 2 * len(same):
        received = Words(f"{len(images):,} for {len(same):,} pairs")
        raise invalid(f"the images of {path}", "be two for each pair", received, "fetch it again")
    return PairBin(images, [bool(one) for one in same])


def _two_lists(value: Any, path: Path) -> tuple[list[Any], list[Any]]:
    are_two = isinstance(value, list | tuple) and len(value) == 2
    if not are_two or not all(isinstance(part, list | tuple) for part in value):
        received = Words(f"another {type(value).__name__}")
        raise invalid(str(path), "hold a list of images and one of booleans", received, "mend it")
    images, same = value
    return list(images), list(same)
