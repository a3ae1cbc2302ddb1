"""Write samples into shards, so that a crash at any moment leaves only whole ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow.parquet as pq

from insvie_lightning.batch import Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import finished_keys, finished_shards
from insvie_lightning.shards.record import describe, to_record, to_row, to_table


class ShardWriter:
    """Write `shard-000000.tar` and `shard-000000.parquet`, the next pair, and so on; use it in a `with` statement.

    A tar is closed under a temporary name, read back, compared and renamed; then its Parquet part is written, and that
    is what makes the shard finished. An exception drops the shard in progress and leaves the finished ones.

    Args:
        folder: Made if absent. Keys of finished shards in it count as taken.
        shard_size: Rows per shard, rejected samples included: a shard is the unit of restart.
        first_shard: Number of the first shard to write; None appends after the last finished one.
        lossless: Encode clips without loss, which only suits tiny ones.
        taken: Keys that may not be written; None reads those of all finished shards, which takes as long as there are
            many.
        writer: Part of the temporary names, which tells writers apart that might be at the same shard; the writer
            without one has the folder for itself.

    Raises:
        InputError: `shard_size` is below 1, `first_shard` is a finished shard already, or another writer without a
            name is at work in the folder.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        shard_size: int = 1000,
        first_shard: int | None = None,
        lossless: bool = False,
        taken: Iterable[str] | None = None,
        writer: str = "",
    ) -> None:
        self.folder = Path(folder)
        if shard_size < 1:
            raise InputError(f"shard_size is {shard_size}; a shard holds at least 1 row")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._unlock = (lambda: None) if writer else lock_folder(self, self.folder)
        self._number = next_shard(self.folder) if first_shard is None else first_shard
        if self._path("parquet").exists():
            free = next_shard(self.folder)
            raise InputError(f"{self.folder} already holds {self._name('tar')}; the next free number is {free}")
        self._shard_size = shard_size
        self._lossless = lossless
        self._writer = writer
        self._keys = finished_keys(self.folder) if taken is None else set(taken)
        self._rows: list[dict[str, Any]] = []
        self._hashes: dict[str, str] = {}
        self._tar: tarfile.TarFile | None = None

    def write(self, triplet: Triplet) -> None:
        """Encode both clips of a triplet and add it.

        Raises:
            InputError: The clips differ in size or length, or as `write_members`.
        """
        from insvie_lightning.video import encode_clip

        source, edited = triplet.source, triplet.edited
        if source.frames.shape != edited.frames.shape:
            shapes = f"{source.frames.shape} and {edited.frames.shape}"
            raise InputError(f"sample {triplet.key!r}: source and edited clip differ in shape F 3 H W: {shapes}")
        clips = {"source.mp4": source, "edited.mp4": edited}
        members = {name: encode_clip(clip, lossless=self._lossless) for name, clip in clips.items()}
        self.write_members(describe(triplet), members)

    def write_members(self, record: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
        """Add a sample of any kind, such as cached latents.

        Args:
            record: A record (`describe`) or a row of another manifest; `key` is required.
            members: Data by name, such as `latents.safetensors`. `json` is made from the record where it is missing.

        Raises:
            InputError: The key is illegal or taken, or the record is illegal.
        """
        record = to_record(record)
        row = to_row(record, accepted=True, reason="")
        self._claim(record["key"])
        members = {**members, "json": members.get("json") or json.dumps(record, ensure_ascii=False).encode()}
        if self._tar is None:
            self._tar = self._open()
        for name, data in members.items():
            info = tarfile.TarInfo(f"{record['key']}.{name}")
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))
            self._hashes[info.name] = hashlib.sha256(data).hexdigest()
        self._append(row)

    def reject(self, key: str, reason: str, **fields: Any) -> None:
        """Record a sample that was made or read but is not fit for use: a row with its reason, and no members.

        Args:
            key: As of an accepted sample.
            reason: Why, in one sentence.
            **fields: Whatever else is known of its record.

        Raises:
            InputError: As `write_members`.
        """
        row = to_row(to_record({"scores": {}, **fields, "key": key}), accepted=False, reason=reason)
        self._claim(key)
        self._append(row)

    def close(self) -> None:
        """Finish the shard in progress; for owners that cannot use a `with` statement."""
        self._finish()
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Drop the shard in progress, for owners that cannot use a `with` statement."""
        if self._tar is not None:
            # What is still in the buffer may not fit on a full disk.
            with suppress(OSError):
                self._tar.close()
        for suffix in ("tar", "parquet"):
            self._path(suffix, temporary=True).unlink(missing_ok=True)
        self._rows, self._hashes, self._tar = [], {}, None
        self._unlock()

    def _claim(self, key: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise InputError(f"sample key {key!r} is not legal; it may hold letters, digits, '_' and '-' only")
        if key in self._keys:
            raise InputError(f"sample key {key!r} is already in {self.folder}; keys are unique in a data set")
        self._keys.add(key)

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._shard_size:
            self._finish()

    def _finish(self) -> None:
        if not self._rows:
            return
        (self._tar or self._open()).close()
        temporary = self._path("tar", temporary=True)
        tar_sha256, members = self._checked(temporary)
        storage = {"shard": self._name("tar"), "tar_sha256": tar_sha256, "tar_bytes": temporary.stat().st_size}
        table = to_table({**row, **storage, "members": members.get(row["key"], [])} for row in self._rows)
        os.replace(temporary, self._path("tar"))
        pq.write_table(table, self._path("parquet", temporary=True), compression="zstd")
        os.replace(self._path("parquet", temporary=True), self._path("parquet"))
        self._number += 1
        self._rows, self._hashes, self._tar = [], {}, None

    def _checked(self, path: Path) -> tuple[str, dict[str, list[dict[str, Any]]]]:
        """Read the tar back: its hash, and the members of each key; a disk that lies is found here."""
        members: dict[str, list[dict[str, Any]]] = {}
        found = list_tar(path)
        with path.open("rb") as file:
            for full_name, (offset, size) in found.items():
                file.seek(offset)
                sha256 = hashlib.sha256(file.read(size)).hexdigest()
                if self._hashes.get(full_name) != sha256:
                    raise OSError(f"{path}: {full_name} does not read back as it was written")
                key, _, name = full_name.partition(".")
                members.setdefault(key, []).append({"name": name, "offset": offset, "size": size, "sha256": sha256})
            if found.keys() != self._hashes.keys():
                raise OSError(f"{path}: {len(found)} of {len(self._hashes)} members read back")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest(), members

    def _open(self) -> tarfile.TarFile:
        return tarfile.open(self._path("tar", temporary=True), "w", format=tarfile.GNU_FORMAT)

    def _name(self, suffix: str) -> str:
        return f"shard-{self._number:06d}.{suffix}"

    def _path(self, suffix: str, temporary: bool = False) -> Path:
        name = self._name(suffix)
        return self.folder / (f".{name}{self._writer and '.'}{self._writer}.tmp" if temporary else name)


def lock_folder(owner: object, folder: Path) -> Callable[[], object]:
    """Lock a folder for an object, for as long as this lives; return what unlocks it earlier.

    The lock is the system's (`flock`) and leaves no file. Where disk or system have none, nothing is locked.

    Raises:
        InputError: Another one has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return lambda: None
    descriptor = os.open(folder, os.O_RDONLY)
    unlock = weakref.finalize(owner, os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        unlock()
        raise InputError(f"{folder} is being written by another job; wait for it, or choose another folder") from None
    except OSError:
        unlock()
    return unlock


def next_shard(folder: Path) -> int:
    """Return the number after the last finished shard of a folder."""
    return max((int(part.stem.removeprefix("shard-")) for part in finished_shards(folder)), default=-1) + 1


def list_tar(path: Path) -> dict[str, tuple[int, int]]:
    """Return (byte offset of the data, size) of every member of a tar, by its full name.

    A cut or damaged tar gives the members before the damage.
    """
    found = {}
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    found[info.name] = (info.offset_data, info.size)
        except tarfile.ReadError:
            pass
    return found
