"""Videos where they were published: list plain files and the members of zips, and read one member of a zip."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from insvie_lightning.errors import InputError
from insvie_lightning.files import open_regular

LISTED = pa.schema(
    {
        "folder": pa.string(),
        "name": pa.string(),
        "path": pa.string(),
        "shard": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "crc": pa.int64(),
        "problem": pa.string(),
    }
)
"""A row a video: the folder it was looked for in, its last name, its path in the folder or in the zip, the file that
holds it, the byte at which it begins there (in a zip: its local header), its bytes there, the zip's checksum of it
(null for a plain file), and why it cannot be used (empty if it can)."""

MAX_BYTES = 2**30
"""Of an unpacked member; a video is packed to about its own size, so whatever grows beyond this is no video."""
MAX_RATIO = 100
"""Of its size to that in the zip, beyond the first MB, likewise."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _CHECKSUM_FOLLOWS = 0x1, 0x8
_LOCAL_HEADER = struct.Struct("<4s2xHH4xI8xHH")


def list_videos(folder: Path, root: Path, broken: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Yield `LISTED` rows of a folder, of `FOLDER.zip`, or of all zips that a pattern such as `source*.zip` names.

    Only the directories of zips are read, one zip at a time; nothing is extracted.

    Args:
        folder: The folder, zip or pattern; nothing is yielded if there is none.
        root: Paths of files below it are given relative to it, others as they are.
        broken: Receives name -> reason of each zip that cannot be opened.
    """
    plain, zips = _find(folder)
    if plain:
        plain = [path for path in plain if path.is_file()]
        sizes = [path.stat().st_size for path in plain]
        paths, shards = [_text(path.relative_to(folder)) for path in plain], [_shard(path, root) for path in plain]
        yield _batch(folder, paths, shards, [0] * len(plain), sizes, [None] * len(plain), [""] * len(plain))
    for path in zips:
        shard = _shard(path, root)
        try:
            with open_regular(path, "a zip") as file, zipfile.ZipFile(file) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
            # Zips made on Windows may hold backslashes.
            paths, shards = [info.filename.replace("\\", "/") for info in infos], [shard] * len(infos)
            offsets, sizes = [info.header_offset for info in infos], [info.compress_size for info in infos]
            yield _batch(folder, paths, shards, offsets, sizes, [info.CRC for info in infos], map(_problem, infos))
        except Exception as error:  # Python's reader raises whatever the bytes lead it into
            broken[path.name] = f"{path.name} is no whole zip ({error}); fetch it again, or join its parts"


def unzip_member(read: Callable[[int, int], bytes], offset: int, size: int, name: str) -> bytes:
    """Return a member of a zip, unpacked and compared with its checksum, without reading the zip's directory.

    The layout of the local header is that of section 4.3.7 of PKWARE's APPNOTE.TXT.

    Args:
        read: Returns (size, offset) bytes of the zip.
        offset: Byte at which its local header begins.
        size: Bytes of its data, as packed.
        name: What to call the zip in errors.

    Raises:
        InputError: There is no member at that byte, or its data is damaged, larger than 2^30 bytes, or a hundred times
            as large as it is packed.
    """
    header = read(_LOCAL_HEADER.size, offset)
    signature, flags, method, crc, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise InputError(f"{name} has no member at byte {offset}: it is not the zip that was indexed")
    begin = offset + _LOCAL_HEADER.size + name_length + extra_length
    packed = read(size, begin)
    if flags & _CHECKSUM_FOLLOWS:
        follows = read(8, begin + size)
        (crc,) = struct.unpack_from("<I", follows, 4 if follows.startswith(b"PK\x07\x08") else 0)
    limit = min(MAX_BYTES, MAX_RATIO * size + 2**20)
    try:
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unpack.decompress(packed, limit) if method == zipfile.ZIP_DEFLATED else packed
    except zlib.error:
        data = b""
    if len(data) >= limit:
        raise InputError(
            f"{name}: the member at byte {offset} has more than {limit:,} bytes out of {size:,}, which no video needs"
        )
    if zlib.crc32(data) != crc or method not in _METHODS:
        raise InputError(f"{name}: the member at byte {offset} is damaged")
    return data


def _find(folder: Path) -> tuple[list[Path], list[Path]]:
    if folder.is_dir():
        files = list(_walk(folder))
    else:
        beside = folder.with_name(f"{folder.name}.zip")
        files = [beside] if beside.is_file() else list(folder.parent.glob(folder.name))
    zips = sorted(path for path in files if path.suffix.lower() == ".zip")
    return sorted(set(files) - set(zips)) if folder.is_dir() else [], zips


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, also behind links, as those that spread a data set over several disks."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _leads_back(Path(parent, name))]
        yield from (Path(parent, name) for name in names)


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to a folder that it lies in."""
    return path.is_symlink() and any(above.resolve() == path.resolve() for above in path.parents)


def _problem(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return "encrypted in its zip"
    return "" if info.compress_type in _METHODS else f"compression method {info.compress_type} of zips is not read"


def _batch(folder: Path, paths: list[str], *columns: Iterable[Any]) -> pa.RecordBatch:
    """Make `LISTED` rows of a folder: paths, shards, offsets, sizes, checksums, problems."""
    names = [path.rpartition("/")[2] for path in paths]
    values = ([str(folder)] * len(paths), names, paths, *map(list, columns))
    arrays = [pa.array(column, kind.type) for column, kind in zip(values, LISTED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=LISTED)


def _shard(path: Path, root: Path) -> str:
    return _text(path.relative_to(root) if path.is_relative_to(root) else path)


def _text(path: PurePath) -> str:
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")
