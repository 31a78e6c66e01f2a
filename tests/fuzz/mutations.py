"""Bytes of a valid file -> bytes of a damaged one. The same generator gives the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = 3000  # brackets: more than Python's recursion limit
TOKENS = (
    *(b"", b" ", b"nan", b"NaN", b"-Infinity", b"null", b"true", b"None", b"-1", b"1.5", b"0x10"),
    *(b"9" * 19, b"-" + b"9" * 30, b"9" * 400, b"9" * 5000, b"1e400", b"-0", b"1" + b"0" * 309),
    *(b"\0", b"\x1a", b"\x7f", b"\xff", b"\xe9", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"\n", b"\r", b"\r\n\r\n", b"\xe2\x80\xa8", b"\x85"),
    *(b'"', b'""', b"'", b"\\", b",", b";", b"\t", b"|", b"[", b"{", b"}", b"[]", b"{}", b":"),
    *(b"[" * DEEP, b'{"a":' * DEEP, b"[" * 50 + b"]" * 50, b"a" * 140_000, b"=", b"%s", b"#"),
    *(
        b"(",
        b"()",
        b"../../etc/passwd",
        b"/dev/zero",
        b"/dev/stdin",
        b".",
        b"..",
        b"con",
        b"\\ud800",
    ),
    *(b"label", b"index", b"1900-13-45", b"2020-01-01T25:00:00", b"\xf0\x9f\x98\x80"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1.5, -0.0, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1),
    *(10**30, 10**400, 1e308, float("nan"), float("inf"), "", " ", "a", "0", "NaN", "\0", "\ud800"),
    *("a" * 2000, "\N{GRINNING FACE}", [], {}, [[]], [None], [1, 2], ["a"], {"a": 1}, {"": None}),
    *([[[[1]]]], "../x", "/dev/zero", "label", "text", "number"),
)


def mutate(data: bytes, kind: str, rng: Random) -> bytes:
    """Damage the content of a file of a kind: once or, with falling probability, more often."""
    for _ in range(1 + int(rng.expovariate(1.2))):
        data = _damaged(data, kind, rng)
    return data


def _damaged(data: bytes, kind: str, rng: Random) -> bytes:
    structured = STRUCTURED.get(kind)
    if structured is not None and rng.random() < 0.7:
        try:
            return structured(data, rng)
        except Exception:  # an earlier mutation has broken the structure, in whatever way
            pass
    return rng.choice(PLAIN)(data, rng)


# Bytes -----------------------------------------------------------------------------------------


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 8, 30)) :]


def _double(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 20, 200))]
    return data[:start] + piece * rng.choice((1, 1, 2, 50)) + data[start:]


def _token(data: bytes, rng: Random) -> bytes:
    """Put a token somewhere, often in place of a run of letters or digits."""
    start = stop = rng.randrange(len(data) + 1)
    if rng.random() < 0.7:
        while start and data[start - 1 : start].isalnum():
            start -= 1
        while stop < len(data) and data[stop : stop + 1].isalnum():
            stop += 1
    return data[:start] + rng.choice(TOKENS) + data[stop:]


def _swap(data: bytes, rng: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def _number(data: bytes, rng: Random) -> bytes:
    """Write a small, a large or a negative whole number over some bytes, as headers hold them."""
    size, letter = rng.choice(((1, "b"), (2, "h"), (4, "i"), (8, "q")))
    most = 1 << (8 * size - 1)
    value = rng.choice((0, 1, -1, most - 1, -most, rng.randrange(most)))
    start = rng.randrange(max(1, min(len(data), rng.choice((64, 1 << 20)))))
    return data[:start] + struct.pack(rng.choice("<>") + letter, value) + data[start + size :]


PLAIN = (_flip, _cut, _remove, _double, _token, _token, _token, _swap, _number)


# JSON ------------------------------------------------------------------------------------------


def _json(data: bytes, rng: Random) -> bytes:
    text = data.decode()
    if text.lstrip()[:1] == "{" and "\n{" in text:
        lines = text.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(change_json(json.loads(lines[place]), rng))
        return "\n".join(lines).encode()
    return json.dumps(change_json(json.loads(text), rng)).encode()


def change_json(value: Any, rng: Random) -> Any:
    """Change one value, or one key, somewhere in what JSON holds."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return _nested(rng) if rng.random() < 0.03 else rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, changed = rng.choice(keys), value.copy()
    chance = rng.random()
    if chance < 0.08:
        del changed[key]
    elif chance < 0.14 and isinstance(changed, dict):
        changed[rng.choice(("", "a", "label", "\0", *keys))] = changed.pop(key)
    elif chance < 0.2 and isinstance(changed, list):
        changed.insert(key, rng.choice((*VALUES, value[key])))
    else:
        changed[key] = change_json(value[key], rng)
    return changed


def _nested(rng: Random) -> Any:
    value: Any = 1
    for _ in range(rng.choice((20, 200))):  # json.dumps is recursive, too; tokens go deeper
        value = [value]
    return value


# Packed files ----------------------------------------------------------------------------------


def _gzip(kind: str) -> Callable[[bytes, Random], bytes]:
    def change(data: bytes, rng: Random) -> bytes:
        return gzip.compress(_damaged(gzip.decompress(data), kind, rng), 1, mtime=0)

    return change


def _zip(data: bytes, rng: Random) -> bytes:
    """Change a member of a zip archive: its name, its header (of NumPy), or its content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(members))
    name, content = members[place]
    chance = rng.random()
    if chance < 0.1:
        name = rng.choice(("y.npy", "x", "", "../x.npy", "x.npy", "\N{GRINNING FACE}.npy", "a/"))
    elif chance < 0.7 and content[:6] == b"\x93NUMPY":
        content = _npy(content, rng)
    else:
        content = rng.choice(PLAIN)(content, rng)
    members[place] = (name, content)
    if rng.random() < 0.1:
        members.append(rng.choice(members))
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


DTYPES = (
    *("<f8", "<f4", "<f2", "<i8", "<u8", "|i1", "|u1", ">i4", "|b1", "|O", "<U4", "|S3", "<c16"),
    *("<M8[s]", "<m8", "|V4", "<U0", "|S0", "<f99", "i", "", "<U2000000000", "<g", "[('a','<i4')]"),
)
SHAPES = (
    *("()", "(0,)", "(1,)", "(6, 1)", "(-1,)", "(6, 0)", "(1,) * 9", "(10**12,)", "(2**63,)", "6"),
    *("(99999999999,)", "(4611686018427387904, 4)", "(True,)", "(6.0,)", "('6',)", "None", "(6,"),
    *("(" * 200, "(6, 2, 1)", "(12,)", "(2, 3)", "(" + "1," * 70 + ")", "(9223372036854775808,)"),
)


def _npy(content: bytes, rng: Random) -> bytes:
    """Change the header of a NumPy array."""
    (length,) = struct.unpack("<H", content[8:10])
    header, rest = content[10 : 10 + length].decode("latin-1"), content[10 + length :]
    chance = rng.random()
    if chance < 0.4:
        start = header.index("'shape': ") + 9
        stop = header.index(")", start) + 1
        header = header[:start] + rng.choice(SHAPES) + header[stop:]
    elif chance < 0.8:
        start = header.index("'descr': ") + 9
        stop = header.index(", '", start)
        header = header[:start] + repr(rng.choice(DTYPES)) + header[stop:]
    elif chance < 0.9:
        header = rng.choice(PLAIN)(header.encode("latin-1"), rng).decode("latin-1")
    else:
        header = header.replace("False", rng.choice(("True", "1", "None", "__import__('os')")))
    packed = header.encode("latin-1")
    version = rng.choice((b"\x01\0", b"\x01\0", b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    size = struct.pack("<H" if version == b"\x01\0" else "<I", len(packed) & 0xFFFF)
    return b"\x93NUMPY" + version + size + packed + rest


def _safetensors(data: bytes, rng: Random) -> bytes:
    """Change the header of a safetensors file, or the JSON value that keeprate keeps in it."""
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    about = header.get("__metadata__", {})
    if about.get("keeprate", "{}") != "{}" and rng.random() < 0.6:
        inner = about["keeprate"]
        if rng.random() < 0.1:
            inner = rng.choice(PLAIN)(inner.encode(), rng).decode("utf-8", "replace")
        else:
            inner = json.dumps(change_json(json.loads(inner), rng))
        header["__metadata__"] = {**about, "keeprate": inner}
    elif rng.random() < 0.5:
        names = [name for name in header if name != "__metadata__"]
        entry = header[rng.choice(names)]
        entry["dtype"] = rng.choice(("F32", "I32", "U32", "F64", "BOOL", "U8", "BF16", "F8_E4M3"))
        if rng.random() < 0.5:
            entry["shape"] = [*entry["shape"], 1] if rng.random() < 0.5 else entry["shape"][::-1]
    else:
        header = change_json(header, rng)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + rest


def _parquet(data: bytes, rng: Random) -> bytes:
    """Change the footer, or a table's column or its notes on types, and write the table anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.4:  # the footer lies before the last 8 bytes
        (length,) = struct.unpack("<I", data[-8:-4])
        start = max(0, len(data) - 8 - length)
        return data[:start] + rng.choice((_flip, _flip, _number))(data[start:-8], rng) + data[-8:]
    try:
        table = pq.read_table(io.BytesIO(data))
        table = _changed_table(table, rng)
        stream = io.BytesIO()
        pq.write_table(table, stream)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return stream.getvalue()


def _changed_table(table: Any, rng: Random) -> Any:
    import pyarrow as pa

    metadata = dict(table.schema.metadata or {})
    place, n = rng.randrange(table.num_columns), table.num_rows
    names = table.column_names
    chance = rng.random()
    if chance < 0.35:
        key = rng.choice((b"huggingface", b"pandas"))
        old = json.loads(metadata.get(key, b'{"info": {"features": {"label": {}}}}'))
        text = json.dumps(change_json(old, rng)).encode()
        metadata[key] = text if rng.random() < 0.8 else rng.choice(PLAIN)(text, rng)
        return table.replace_schema_metadata(metadata)
    if chance < 0.45:
        names[place] = rng.choice(("", "label", "a" * 5000, "\0", names[0], "image", "path"))
        return table.rename_columns(names)
    if chance < 0.55:
        return table.slice(0, rng.choice((0, 1, 2)))
    if chance < 0.65:
        return table.remove_column(place)
    values = [rng.choice(VALUES[:36]) for _ in range(2)]
    kind = rng.choice((*_column_types(), None))
    changed = [values[i % 2] if rng.random() < 0.5 else None for i in range(n)]
    cast = kind is not None and rng.random() < 0.5
    column = table.column(place).cast(kind) if cast else pa.array(changed, kind)
    return table.set_column(place, names[place], column)


def _column_types() -> tuple[Any, ...]:
    import pyarrow as pa

    return (
        *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_string()),
        *(pa.binary(), pa.bool_(), pa.null(), pa.date32(), pa.timestamp("ns"), pa.time64("us")),
        *(pa.decimal128(38, 10), pa.duration("s"), pa.list_(pa.int32()), pa.list_(pa.string())),
        *(pa.struct([("bytes", pa.binary()), ("path", pa.string())]), pa.binary(3)),
        *(pa.struct([("bytes", pa.string())]), pa.dictionary(pa.int8(), pa.string())),
        *(pa.list_(pa.list_(pa.float32())), pa.map_(pa.string(), pa.int32())),
        pa.list_(pa.int8(), 2),
    )


def _png(data: bytes, rng: Random) -> bytes:
    """Change a field of a PNG's first chunk, and mend its checksum."""
    body = bytearray(data[12:29])  # IHDR, width, height, depth, colour, ...
    if rng.random() < 0.5:
        at = rng.choice((4, 8))
        body[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 9000, 60_000, 2**31 - 1)))
    else:
        body[rng.randrange(12, 17)] = rng.randrange(256)
    return data[:12] + bytes(body) + struct.pack(">I", zlib.crc32(bytes(body))) + data[33:]


STRUCTURED: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json,
    "json.gz": _gzip("json"),
    "text.gz": _gzip("text"),
    "zip": _zip,
    "npy": _npy,
    "safetensors": _safetensors,
    "parquet": _parquet,
    "png": _png,
}
