"""Read samples: one member by its byte offset (training), or all of them in storage order (jobs)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular
from insvie_lightning.shards.archives import unzip_member
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.record import to_record


def shard_of(row: Mapping[str, Any], member: str) -> str:
    """Return the file that holds a member of a manifest row, relative to the folder of the data set."""
    shard: str = (member == "source.mp4" and row["source_shard"]) or row["shard"]
    return shard


def read_member(shard: Path | str, offset: int, size: int) -> bytes:
    """Return a member of a tar or a zip, or a part of a file; safe in threads and in forked workers.

    The last 64 shards stay open, so one that is replaced under the same name is not noticed.

    Args:
        shard: A tar or a plain file; or a zip, whose members are unpacked and compared with their checksums.
        offset: Byte at which the member begins; in a zip, its local header.
        size: Bytes that it takes there.

    Raises:
        InputError: The shard is absent, or ends before the member does; or the member of a zip is damaged.
    """
    file = _open(str(shard))

    def read(size: int, offset: int) -> bytes:
        # Compared before they are read: a manifest may promise more than the memory holds.
        if not 0 <= offset <= offset + size <= os.fstat(file.descriptor).st_size:
            raise InputError(f"{shard} is cut: bytes {offset} to {offset + size} are not all there")
        try:
            data = os.pread(file.descriptor, size, offset)
        except OSError as error:
            raise InputError(
                f"{shard}: bytes {offset} to {offset + size} cannot be read: {first_line(error)}"
            ) from None
        if len(data) < size:
            raise InputError(f"{shard} is cut: bytes {offset} to {offset + size} are not all there")
        return data

    return unzip_member(read, offset, size, str(shard)) if Path(shard).suffix.lower() == ".zip" else read(size, offset)


def decode_triplet(record: Mapping[str, Any], source: bytes, edited: bytes) -> Triplet:
    """Return the triplet of a manifest row (or of a parsed `KEY.json`) and its two encoded videos.

    Raises:
        InputError: A video cannot be decoded; the sentence names the key.
    """
    from insvie_lightning.video import read_clip

    record, key = to_record(record), record["key"]
    return Triplet(
        key=key,
        source=read_clip(source, name=f"source clip of {key!r}"),
        edited=read_clip(edited, name=f"edited clip of {key!r}"),
        **{name: value for name, value in record.items() if name not in ("key", "frames", "height", "width", "fps")},
    )


def iterate_samples(
    folder: Path | str, where: str = "true", on_bad: Callable[[str, str], None] | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Yield every accepted sample as (record, members), tar after tar from front to back.

    A member's bytes are compared with the hash in the manifest, so what is yielded is what was written.

    Args:
        folder: The data set.
        where: A clause as in `Manifest.query`.
        on_bad: Called with key and reason for each sample that cannot be read, which is then skipped: a tar cut in
            the middle still yields every sample before the cut. None raises instead.

    Raises:
        InputError: The manifest cannot be read, or (without `on_bad`) a sample cannot.
    """
    manifest = open_manifest(folder)
    rows = manifest.query(where)
    for batch in rows.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            try:
                members = read_members(manifest.folder, row)
            except InputError as error:
                if on_bad is None:
                    raise
                on_bad(row["key"], str(error))
            else:
                yield to_record(row), members


def read_members(folder: Path, row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return all members of a manifest row, by name, after comparing them with their hashes.

    Raises:
        InputError: The tar is absent or cut, or a member is not what was written.
    """
    members = {}
    for member in row["members"]:
        shard = shard_of(row, member["name"])
        data = read_member(folder / shard, member["offset"], member["size"])
        if member["sha256"] and hashlib.sha256(data).hexdigest() != member["sha256"]:
            raise InputError(f"{shard}: {member['name']} of {row['key']!r} is not the file that was written")
        members[member["name"]] = data
    return members


@dataclass(frozen=True)
class _OpenFile:
    descriptor: int

    def __del__(self) -> None:
        os.close(self.descriptor)


@lru_cache(maxsize=64)
def _open(path: str) -> _OpenFile:
    with open_regular(path, "a shard") as file:
        return _OpenFile(os.dup(file.fileno()))
