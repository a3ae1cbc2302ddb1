"""The job of a folder: what its shards are built from, so that different jobs cannot mix."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from insvie_lightning.errors import InputError
from insvie_lightning.files import read_json
from insvie_lightning.shards.manifest import find_parts, finished_shards

JOB = "job.json"


def open_job(folder: Path, job: dict[str, Any]) -> None:
    """Say what a folder is built from, or check that it is just this, so that different jobs cannot mix.

    Args:
        folder: Made if absent.
        job: What makes the bytes of the shards; JSON types only. What is under the name `at` is not compared.

    Raises:
        InputError: The folder holds another job, or shards of none; or it cannot be written.
    """
    path = folder / JOB
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if parts := finished_shards(folder):
                raise InputError(f"{folder} holds shards of no job, such as {parts[0].name}; choose an empty folder")
            temporary = folder / f".{JOB}.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(job, indent=1, ensure_ascii=False), encoding="utf-8")
            try:
                os.link(temporary, path)  # unlike a rename it fails if another process was faster
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {(error.strerror or str(error)).lower()}") from None
    if differing := next(_differences(read_job(folder), json.loads(json.dumps(job))), None):
        name, there, here = differing
        raise InputError(
            f"{folder} holds another job: its {name} is {there}, this one's {here}; "
            "choose an empty folder, or the settings of the first"
        )


def read_job(folder: Path) -> dict[str, Any]:
    """Return what `open_job` wrote; empty for a folder that no job has built.

    Raises:
        InputError: The file is broken.
    """
    if not os.path.lexists(folder / JOB):
        return {}
    try:
        job: dict[str, Any] = read_json(folder / JOB)
    except InputError as error:
        raise InputError(f"{error}; remove it to build the data set anew elsewhere") from None
    if not _is_job(job):
        raise InputError(f"{folder / JOB} is no job of a step; remove it to build the data set anew elsewhere")
    return job


def check_finished(folder: Path) -> None:
    """Refuse a folder that its step has not finished.

    Raises:
        InputError: As said, or its job is broken, or there is no shard.
    """
    finished = len(find_parts(folder))
    job = read_job(folder)
    if "input" in job:
        units = -(-job["input"]["samples"] // job["shard_size"])
        if finished < units:
            raise InputError(
                f"{folder} is not finished: {units - finished} of {units} shards are missing; run {job['step']} again"
            )


def say_full(folder: Path, error: OSError) -> Exception:
    """Return the sentence for a disk that is full, and every other error as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return InputError(f"the disk of {folder} is full; free some space and run again: finished shards are kept")


def _is_job(job: dict[str, Any]) -> bool:
    """Whether a job that says what it reads says so as `Builder.feed` does."""
    if "input" not in job:
        return True
    read, size = job["input"], job.get("shard_size")
    if not isinstance(read, dict) or not isinstance(job.get("step"), str) or not isinstance(size, int) or size < 1:
        return False
    return isinstance(read.get("samples"), int) and isinstance(read.get("at", ""), str)


def _differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield name and both values of whatever differs, but for what is under `at`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys() - {"at"}):
            if key != "at":
                yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield name, json.dumps(there), json.dumps(here)
