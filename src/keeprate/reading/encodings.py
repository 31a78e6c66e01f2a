"""What the bytes of a text file are: how files are opened, and which encoding they have."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from keeprate.errors import Words, invalid, needs
from keeprate.limits import check_size, read_limit

PIECE = 1 << 20  # bytes that are looked at together
SMALL_PIECE = 1 << 18  # bytes that fit into a processor's cache
SAMPLE = 1 << 16  # bytes that tell the dialect
UNREADABLE = (OSError, EOFError, zlib.error)  # the last two: a gzip file that was cut or damaged
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
COMMONER = {
    **dict.fromkeys(("shift_jis", "shift_jisx0213", "shift_jis_2004"), "cp932"),
    **dict.fromkeys(("euc_jisx0213", "euc_jis_2004"), "euc_jp"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **{"euc_kr": "cp949", "big5": "cp950", "big5hkscs": "cp950"},
}
"""The encoding that is likelier than one that has nearly the same letters."""
COMMON = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp874", "koi8_r", "iso8859_2", "iso8859_5", "iso8859_7", "iso8859_15", "mac_roman"),
    *("cp850", "cp866", "cp932", "euc_jp", "gb18030", "cp949", "cp950", *COMMONER),
)
ODD = re.compile(
    "[\ufffd\uff61-\uff9f\u3131-\u318e\u2500-\u25ff\ue000-\uf8ff\x7f-\x9f]"  # rare signs
    "|[A-Za-z][\u0370-\u07ff]|[\u0370-\u07ff][A-Za-z]"  # letters of two scripts in a word
    r"|[^\W\d_]"  # a sign within a word
    r"[\xa1-\xbf\xd7\xf7\u02b0-\u02ff\u201a\u201e\u2020-\u2026\u2030-\u203a][^\W\d_]"
)
USUAL_SIGNS = "€‚„…‘’“”•–—™\N{NO-BREAK SPACE}¡£§©«°±²´·»¼½¿×®"  # of cp1252, in Western texts
UTF8_LETTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


@dataclass(frozen=True)
class Encoding:
    """How bytes stand for text.

    Attributes
    ----------
    codec : str
        The name that Python knows.
    bom : bytes
        The mark that the file starts with. Empty if there is none.
    guessed : bool
        Whether nothing but the look of the text tells the encoding.
    """

    codec: str = "utf-8"
    bom: bytes = b""
    guessed: bool = False

    @property
    def note(self) -> tuple[str, ...]:
        """What people should know about the encoding."""
        if self.guessed:
            remedy = "save it as UTF-8 if names look wrong"
            return (f"the text is read as {self.codec}, not UTF-8; {remedy}",)
        return () if self.codec == "utf-8" else ("the text is read as UTF-16",)


UTF8 = Encoding()


def open_bytes(path: Path) -> Any:  # a file, or the like of one
    """Open a file for reading. What gzip has packed is unpacked, whatever the name."""
    return gzip.open(path, "rb") if is_packed(path) else open(path, "rb")


def is_packed(path: Path) -> bool:
    """Whether gzip has packed a file, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path, encoding: Encoding, errors: str = "strict") -> io.TextIOWrapper:
    """Open a file's text behind the byte order mark, line ends as they are."""
    file = open_bytes(path)
    file.seek(len(encoding.bom))
    return io.TextIOWrapper(file, encoding.codec, errors, newline="")


def pieces_of(path: Path, encoding: Encoding, size: int = PIECE) -> Iterator[bytes]:
    """Yield the bytes behind the mark in pieces, and an empty piece at the end."""
    most = read_limit() if is_packed(path) else None
    total = 0
    with open_bytes(path) as file:
        file.seek(len(encoding.bom))
        while piece := file.read(size):
            total += len(piece)
            if most is not None:  # what is packed may be a thousand times larger than the file
                check_size(str(path), total, "unpack it and keep a part of its rows", most=most)
            yield piece
        yield b""


def find_encoding(path: Path) -> Encoding:
    """Tell the encoding of a text file by its mark, else by its bytes.

    Raises
    ------
    InputError
        If the file is no text.
    """
    encoding = likely_encoding(path)
    if encoding != UTF8:
        return encoding
    try:
        for _ in text_bytes_of(path, encoding):
            pass
    except UnicodeDecodeError:
        return other_encoding(path)
    return encoding


def likely_encoding(path: Path) -> Encoding:
    """Tell the encoding by the mark. It is UTF-8 where there is none, and may turn out not to be.

    Raises
    ------
    InputError
        If the file is no text.
    """
    with open_bytes(path) as file:
        start = file.read(SAMPLE)
    for bom, codec in BOMS.items():
        if start.startswith(bom):
            return Encoding(codec, bom)
    if b"\0" in start:
        received = Words("zero bytes: UTF-16 without a byte order mark, or no text at all")
        raise invalid(str(path), "be a text file", received, "save it as UTF-8")
    return UTF8


def text_bytes_of(path: Path, encoding: Encoding) -> Iterator[bytes]:
    """Yield the bytes that the text behind the mark has in UTF-8, in pieces.

    Raises
    ------
    UnicodeDecodeError
        If bytes cannot be decoded.
    """
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    is_utf8 = encoding.codec == "utf-8"
    for piece in pieces_of(path, encoding, SMALL_PIECE):
        # To tell that bytes are ASCII is much faster than to decode them.
        if is_utf8 and piece.isascii() and not decoder.getstate()[0]:
            yield piece
            continue
        text = decoder.decode(piece, final=not piece)
        yield piece if is_utf8 else text.encode()


def other_encoding(path: Path) -> Encoding:
    """Guess the encoding of a file that is not UTF-8 throughout."""
    sample = _lines_beyond_ascii(path)
    inside = b"".join(UTF8_LETTER.findall(sample))
    beyond_ascii = sum(map(len, re.findall(rb"[\x80-\xff]+", sample)))
    if len(inside) > beyond_ascii / 2:
        return Encoding()  # UTF-8 with damaged bytes, which are refused later
    others = ["utf_8", "utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le"]
    detector = needs("charset_normalizer")
    matches = detector.from_bytes(sample, cp_exclusion=[*others, "utf_32_be", "utf_8_sig"])
    best = _best_of(list(matches), sample)
    if best is None or _cp1252_is_better(best, matches, sample):
        return Encoding("cp1252", guessed=True)
    codec = COMMONER.get(best.encoding, best.encoding)
    return Encoding(codec if _decodes(path, codec) else best.encoding, guessed=True)


def _best_of(matches: Sequence[Any], sample: bytes) -> Any | None:
    """Return the guess whose text has the fewest odd places, then the commonest one."""
    western = _looks_western(sample)
    matches = [match for match in matches if match.encoding != "cp1252" or western]
    least = min((match.chaos for match in matches), default=0.0)
    likely = [match for match in matches if match.chaos <= least + 0.06]
    order = {
        match.encoding: (
            round(_oddity(sample.decode(match.encoding, "replace")), 2),
            match.encoding not in COMMON,
            -match.coherence,
        )
        for match in likely
    }
    return min(likely, key=lambda match: order[match.encoding], default=None)


def _oddity(text: str) -> float:
    """Return how many places are odd, by the number of letters beyond ASCII."""
    beyond = sum(not letter.isascii() for letter in text)
    cases = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return (cases + len(ODD.findall(text))) / max(beyond, 1)


def _lines_beyond_ascii(path: Path) -> bytes:
    """Return the first lines that are not plain ASCII, from anywhere in the file."""
    lines: list[bytes] = []
    size = 0
    for piece in pieces_of(path, Encoding()):
        for line in piece.splitlines():
            if not line.isascii() and size < SAMPLE:
                lines.append(line[:SAMPLE])
                size += len(lines[-1])
        if size >= SAMPLE:
            break
    return b"\n".join(lines)


def _cp1252_is_better(best: Any, matches: Any, sample: bytes) -> bool:
    """Whether the most common 8-bit encoding explains the bytes as well as the best guess."""
    if not _looks_western(sample):
        return False
    known = {match.encoding: match.coherence for match in matches}
    return bool(
        "cp1252" in best.could_be_from_charset or best.coherence <= known.get("cp1252", 0.0) + 0.05
    )


def _looks_western(sample: bytes) -> bool:
    """Whether bytes read as cp1252 are words of Latin letters.

    Short texts hardly tell the code pages apart otherwise. There, letters beyond ASCII stand among
    others; in other scripts they stand together.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    beyond = [letter for letter in text if not letter.isascii()]
    usual = [c for c in beyond if c in USUAL_SIGNS or (c.isalpha() and c not in "ƒªº")]
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    latin = [word for word in words if re.search("[A-Za-z]", word)]
    return len(usual) >= 0.9 * len(beyond) and len(latin) >= 0.5 * len(words)


def _decodes(path: Path, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for piece in pieces_of(path, Encoding()):
            decoder.decode(piece, final=not piece)
    except UnicodeDecodeError:
        return False
    return True
