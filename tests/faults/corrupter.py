"""Spoils one file, by a seed: its bytes, or the place where it lies."""

import ctypes
import io
import json
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Random = np.random.Generator
Damage = Callable[[bytes, Random], bytes]
"""From the bytes of a good file to those of a bad one."""
DEEP = 100_000


def _flipped(share: float) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        spoilt = np.frombuffer(data, np.uint8).copy()
        places = random.integers(0, len(spoilt), max(1, round(share * len(spoilt))))
        spoilt[places] ^= random.integers(1, 256, len(places), np.uint8)
        return spoilt.tobytes()

    return damage


def _swapped(data: bytes, random: Random) -> bytes:
    first, second = np.sort(random.integers(0, len(data) + 1, 2))
    return data[second:] + data[first:second] + data[:first]


def _png() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    return file.getvalue()


BYTES: dict[str, Damage] = {
    "empty": lambda data, random: b"",
    "one byte": lambda data, random: data[:1],
    "cut at a tenth": lambda data, random: data[: len(data) // 10],
    "cut in half": lambda data, random: data[: len(data) // 2],
    "cut at random": lambda data, random: data[: random.integers(1, len(data))],
    "last byte lost": lambda data, random: data[:-1],
    "head lost": lambda data, random: data[64:],
    "one byte flipped": _flipped(0),
    "a thousandth flipped": _flipped(0.001),
    "a tenth flipped": _flipped(0.1),
    "head zeroed": lambda data, random: bytes(min(64, len(data))) + data[64:],
    "middle zeroed": lambda data, random: (
        data[: len(data) // 3] + bytes(2 * len(data) // 3 - len(data) // 3) + data[2 * len(data) // 3 :]
    ),
    "tail zeroed": lambda data, random: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "zeros": lambda data, random: bytes(len(data)),
    "noise": lambda data, random: random.bytes(len(data)),
    "noise behind the head": lambda data, random: data[:32] + random.bytes(len(data)),
    "parts swapped": _swapped,
    "twice": lambda data, random: data + data,
    "a web page": lambda data, random: b"<!doctype html><html><body>404 Not Found</body></html>",
    "a picture": lambda data, random: _png(),
    "compressed": lambda data, random: zlib.compress(data),
    "an LFS pointer": lambda data, random: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "UTF-16": lambda data, random: data.decode("latin-1").encode("utf-16"),
}
"""What may happen to the bytes of any file."""


def _json(value: Any) -> Damage:
    return lambda data, random: json.dumps(value).encode()


JSON: dict[str, Damage] = {
    "nested deeply": lambda data, random: b"[" * DEEP + b"]" * DEEP,
    "objects nested deeply": lambda data, random: b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "null": _json(None),
    "a number": _json(3),
    "a list of numbers": _json([1, 2, 3]),
    "a list of lists": _json([[], [[]], [None, 1]]),
    "an empty object": _json({}),
    "values of other types": _json({"a": 1, "b": None, "c": [], "a.mp4": {"edit_style": 3}}),
    "NaN": lambda data, random: b'{"a": NaN, "b": Infinity, "c": -Infinity}',
    "keys twice": lambda data, random: b'{"a.mp4": "x", "a.mp4": "y"}',
    "a huge number": lambda data, random: b'{"a": 1' + b"0" * 5000 + b"}",
    "lone surrogates": lambda data, random: rb'{"\ud800": "\udfff", "a.mp4": "\ud800"}',
}


def _with_names(data: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Change what is in the first column of a table, the header aside."""
    head, *rows = data.splitlines(keepends=True)
    cells = [row.partition(b",") for row in rows]
    names = change([cell[0] for cell in cells])
    return head + b"".join(name + comma + rest for name, (_, comma, rest) in zip(names, cells, strict=True))


def _second_name(change: Callable[[bytes], bytes]) -> Damage:
    """Change the name in the second row of a table."""
    return lambda data, random: _with_names(data, lambda names: [names[0], change(names[1]), *names[2:]])


CSV: dict[str, Damage] = {
    "NUL bytes": lambda data, random: data.replace(b"a", b"\0"),
    "Latin-1": lambda data, random: data + "caf\u00e9.mp4,\u00e9\n".encode("latin-1"),
    "a quote never closed": lambda data, random: data + b'"' + b"x" * 200_000,
    "a cell of 200 kB": lambda data, random: data + b"x" * 200_000 + b",y\n",
    "header only": lambda data, random: data.splitlines()[0] + b"\n",
    "header twice": lambda data, random: data.splitlines()[0] + b"\n" + data,
    "no header": lambda data, random: data.partition(b"\n")[2],
    "columns of one name": lambda data, random: b",".join([data.partition(b",")[0]] * 3) + b"\nx,y,z\n",
    "rows of other lengths": lambda data, random: data + b"\nx\n" + b",".join([b"y"] * 50) + b"\n",
    "other separators": lambda data, random: data.replace(b",", b";"),
    "paths that leave": _second_name(lambda name: b"../../../../etc/" + name),
    "absolute paths": _second_name(lambda name: b"/etc/" + name),
    "a device": _second_name(lambda name: b"/dev/zero"),
    "a name of 5000 letters": _second_name(lambda name: b"n" * 5000 + name),
    "every name the same": lambda data, random: _with_names(data, lambda names: [names[1]] * len(names)),
    "lone surrogates": _second_name(lambda name: b"\xed\xa0\x80" + name[1:]),
}
YAML: dict[str, Damage] = {
    "nested deeply": lambda data, random: b"[" * 3000,
    "a bomb of aliases": lambda data, random: (
        b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10))
    ),
    "an alias of itself": lambda data, random: b"model: &m\n  class_path: *m\n",
    "a Python object": lambda data, random: b'model: !!python/object/apply:os.system ["touch hacked"]\n',
    "a callable": lambda data, random: b"model: {class_path: os.system, init_args: {command: touch hacked}}\n",
    "tabs": lambda data, random: data.replace(b"  ", b"\t"),
    "keys twice": lambda data, random: data + data,
    "a number": lambda data, random: b"3\n",
    "a list": lambda data, random: b"- model\n- data\n",
    "null": lambda data, random: b"model: null\ndata: null\ntrainer: null\n",
    "other types": lambda data, random: b"model: 3\ndata: [1]\ntrainer: x\n",
    "NaN": lambda data, random: data + b"  max_steps: .nan\n",
    "numbers of no end": lambda data, random: data + b"  max_steps: 1" + b"0" * 5000 + b"\n",
    "control characters": lambda data, random: data + b"x: \x07\x00\n",
}


def _header(length: int, text: bytes = b"") -> Damage:
    return lambda data, random: struct.pack("<Q", length) + text + data


def _tensor_header(**entry: Any) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        text = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **entry}}).encode()
        return struct.pack("<Q", len(text)) + text + bytes(16)

    return damage


def _nan_tensors(data: bytes, random: Random) -> bytes:
    begin = 8 + struct.unpack_from("<Q", data)[0]
    return data[:begin] + b"\xff" * (len(data) - begin)


SAFETENSORS: dict[str, Damage] = {
    "a header of 2^63 bytes": _header(2**63),
    "a header of 4 GB": _header(2**32),
    "a header of 90 MB": _header(90_000_000),
    "a header that is no JSON": lambda data, random: struct.pack("<Q", 64) + b"x" * 64,
    "a header nested deeply": lambda data, random: struct.pack("<Q", 2 * DEEP) + b"[" * DEEP + b"]" * DEEP,
    "tensors past the end": _tensor_header(data_offsets=[0, 2**40], shape=[2**38]),
    "tensors before the start": _tensor_header(data_offsets=[16, 0]),
    "a shape that overflows": _tensor_header(shape=[2**40, 2**40]),
    "an unknown type": _tensor_header(dtype="X99"),
    "tensors of another model": _tensor_header(),
    "NaN": _nan_tensors,
}


def _repacked(change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]]) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=target, mode="w") as new:
            for info in old:
                info, content = change(info, old.extractfile(info).read())  # type: ignore[union-attr]
                new.addfile(info, io.BytesIO(content))
        return target.getvalue()

    return damage


def _renamed(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info.name = f"../../{info.name}"
    return info, content


def _linked(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info, content


TAR: dict[str, Damage] = {
    "names that leave": _repacked(_renamed),
    "links": _repacked(_linked),
    "members emptied": _repacked(lambda info, content: (_resized(info, 0), b"")),
    "members of other bytes": _repacked(lambda info, content: (info, bytes(len(content)))),
    "a size of 8 TB": lambda data, random: data[:124] + b"77777777777\0" + data[136:],
    "a negative size": lambda data, random: data[:124] + b"\xff" * 12 + data[136:],
    "end blocks first": lambda data, random: bytes(1024) + data,
}


def _resized(info: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    info.size = size
    return info


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _directory_field(offset: int, value: bytes) -> Damage:
    """Overwrite a field of every entry of the directory of a zip (APPNOTE.TXT, 4.3.12)."""

    def damage(data: bytes, random: Random) -> bytes:
        spoilt, at = bytearray(data), data.find(b"PK\x01\x02")
        while at >= 0:
            spoilt[at + offset : at + offset + len(value)] = value
            at = data.find(b"PK\x01\x02", at + 4)
        return bytes(spoilt)

    return damage


@cache
def _bomb() -> bytes:
    """A zip of a megabyte that unpacks to more than a reader takes."""
    return _zip(("b.mp4", bytes(1_100_000_000)))


ZIP: dict[str, Damage] = {
    "a bomb of 1.1 GB": lambda data, random: _bomb(),
    "names that leave": lambda data, random: _zip(("../../b.mp4", b"x"), ("/etc/b.mp4", b"x")),
    "a method nobody knows": _directory_field(10, b"\x63\0"),
    "LZMA": lambda data, random: _zip(("b.mp4", b"x" * 99), method=zipfile.ZIP_LZMA),
    "encrypted": _directory_field(8, b"\x01\0"),
    "a checksum that is wrong": _directory_field(16, b"\1\2\3\4"),
    "sizes of 4 GB": _directory_field(20, b"\xfe\xff\xff\xff" * 2),
    "offsets past the end": _directory_field(42, b"\xf0\xff\xff\x7f"),
    "no members": lambda data, random: _zip(),
    "a folder of that name": lambda data, random: _zip(("b.mp4/", b"")),
    "a zip in a zip": lambda data, random: _zip(("b.zip", data)),
    "every member twice": lambda data, random: _zip(*[("b.mp4", data), ("x/b.mp4", data[:50])] * 2),
}


def _table(change: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        target = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(data))), target)
        return target.getvalue()

    return damage


def _retyped(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.array([1.5] * len(table)) for name in table.column_names})


def _nulled(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.nulls(len(table), column.type) for name, column in zip(*_columns(table), strict=True)})


def _columns(table: pa.Table) -> tuple[list[str], list[pa.ChunkedArray]]:
    return table.column_names, table.columns


PARQUET: dict[str, Damage] = {
    "columns of another type": _table(_retyped),
    "nulls": _table(_nulled),
    "no rows": _table(lambda table: table[:0]),
    "rows twice": _table(lambda table: pa.concat_tables([table, table])),
    "another table": _table(lambda table: pa.table({"x": [1, 2, 3]})),
    "no columns": _table(lambda table: table.select([])),
    "a column twice": _table(lambda table: table.append_column(table.schema[0], table[0])),
    "a footer of 2 GB": lambda data, random: data[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
}


def _in_manifest(**values: Any) -> Damage:
    """Overwrite facts of every member of a manifest."""

    def change(table: pa.Table) -> pa.Table:
        members = [[{**member, **values} for member in row] for row in table["members"].to_pylist()]
        at = table.column_names.index("members")
        return table.set_column(at, table.schema[at], pa.array(members, table.schema[at].type))

    return _table(change)


def _in_column(name: str, value: Any) -> Damage:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, table.schema[at], pa.array([value] * len(table), table.schema[at].type))

    return _table(change)


MANIFEST: dict[str, Damage] = {
    **PARQUET,
    "offsets past the end": _in_manifest(offset=2**40),
    "negative offsets": _in_manifest(offset=-5),
    "sizes of 1 TB": _in_manifest(size=2**40),
    "negative sizes": _in_manifest(size=-1),
    "members of other names": _in_manifest(name="../../x"),
    "shards that leave": _in_column("shard", "../../../../etc/passwd"),
    "a device as shard": _in_column("shard", "/dev/zero"),
    "lineage that is no JSON": _in_column("lineage", "{"),
    "keys that leave": _in_column("key", "../../x"),
    "NaN frames a second": _in_column("fps", float("nan")),
    "an unknown origin": _in_column("origin", "moon"),
}


def _pickled(protocol: int) -> Damage:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch hacked",)

    def damage(data: bytes, random: Random) -> bytes:
        import pickle

        return pickle.dumps(Code(), protocol=protocol)

    return damage


def _saved(make: Callable[[], Any]) -> Damage:
    def damage(data: bytes, random: Random) -> bytes:
        import torch

        file = io.BytesIO()
        torch.save(make(), file)
        return file.getvalue()

    return damage


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


CHECKPOINT: dict[str, Damage] = {
    "code": _saved(lambda: {"module": {}, "state_dict": {}, "x": Hostile()}),
    "bare code, protocol 2": _pickled(2),
    "bare code, protocol 4": _pickled(4),
    "a list": _saved(lambda: [1, 2, 3]),
    "no tensors": _saved(lambda: {"module": {"x": 3}}),
    "a wrapper of another type": _saved(lambda: {"module": 3, "state_dict": [1]}),
    "numbers as keys": _saved(lambda: {1: 2, "state_dict": {3: 4}}),
    "a bomb of 1.1 GB": lambda data, random: _bomb(),
}


def _picture_bomb(data: bytes, random: Random) -> bytes:
    """A PNG of 40 000 x 40 000 pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def _wide_picture(data: bytes, random: Random) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (12_000, 12)).save(file, "png")
    return file.getvalue()


PICTURE: dict[str, Damage] = {"a bomb of 1.6 gigapixels": _picture_bomb, "12000 pixels wide": _wide_picture}


@cache
def _film(frames: int, size: tuple[int, int]) -> bytes:
    """An mp4 that shows one encoded picture many times."""
    import av
    from av.video.frame import VideoFrame

    height, width = size
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        picture = VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        (packet,) = [*stream.encode(picture), *stream.encode(None)]
        for number in range(frames):
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, 30)
            packet.stream = stream
            container.mux(packet)
    return file.getvalue()


def _sound(data: bytes, random: Random) -> bytes:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    return file.getvalue()


VIDEO: dict[str, Damage] = {
    "12 000 frames": lambda data, random: _film(12_000, (16, 16)),
    "a bomb of 4 gigapixels": lambda data, random: _film(70, (7680, 8192)),
    "9 000 pixels wide": lambda data, random: _film(1, (16, 9008)),
    "one frame": lambda data, random: _film(1, (32, 48)),
    "sound only": _sound,
    "a playlist": lambda data, random: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": lambda data, random: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a stream description": lambda data, random: b"v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 26\n",
}


@contextmanager
def powerless() -> Iterator[None]:
    """Take from this thread the right of root to read what a file's mode forbids."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, now = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if libc.capget(header, before) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    now[:] = before[:]
    now[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(header, now)
    try:
        yield
    finally:
        libc.capset(header, before)


def _socket(path: Path) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


PLACES: dict[str, Callable[[Path], None]] = {
    "vanished": Path.unlink,
    "a folder": lambda path: _replace(path, Path.mkdir),
    "a link to nowhere": lambda path: _replace(path, lambda p: p.symlink_to("nowhere")),
    "a link to itself": lambda path: _replace(path, lambda p: p.symlink_to(p.name)),
    "a pipe": lambda path: _replace(path, os.mkfifo),
    "a socket": _socket,
    "an endless device": lambda path: _replace(path, lambda p: p.symlink_to("/dev/zero")),
    "a disk that fails": lambda path: _replace(path, lambda p: p.symlink_to("/proc/self/mem")),
    "permission denied": lambda path: path.chmod(0),
}
"""What may happen to the place of any file."""
DAMAGES: dict[str, dict[str, Damage]] = {
    "video": VIDEO,
    "picture": PICTURE,
    "JSON": JSON,
    "CSV": CSV,
    "YAML": YAML,
    "safetensors": SAFETENSORS,
    "tar": TAR,
    "zip": ZIP,
    "Parquet": PARQUET,
    "manifest": MANIFEST,
    "checkpoint": CHECKPOINT,
    "text": {},
}
"""What may happen to a file of one kind, beside `BYTES` and `PLACES`."""


OF_ROWS = frozenset(
    {"rows of other lengths", "paths that leave", "absolute paths", "a device", "a name of 5000 letters"}
)
"""What is wrong with one row of a table only."""


def faults(kind: str) -> list[str]:
    """The names of all faults of a kind of file."""
    return [*BYTES, *DAMAGES[kind], *PLACES]


def spoil(path: Path, kind: str, fault: str, seed: int = 0) -> None:
    """Do one of `faults` to a file."""
    if fault in PLACES:
        PLACES[fault](path)
        return
    damage = (BYTES | DAMAGES[kind])[fault]
    path.write_bytes(damage(path.read_bytes(), np.random.default_rng([seed, zlib.crc32(fault.encode())])))
