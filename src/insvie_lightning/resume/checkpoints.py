"""Checkpoints that a crash cannot break: written whole or not at all, and found again by the next run."""

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.resume.sharded import META, check_folder

PART = ".part"
"""What the name of a checkpoint ends in until it is complete."""
NEW = "new"
"""The `--ckpt_path` of a run that starts anew."""
_OVERHEAD_BYTES = 1 << 20


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name in its folder, flushes it to disk, and only then gives it its name.

    Whatever stops the process or the machine, a file of the final name is whole, and the one before it is untouched.
    Nothing is unpickled: a checkpoint is loaded as tensors and plain types only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint`; the room it needs is checked first.

        Raises:
            InputError: The disk has no room for it; says how much is missing.
        """
        if "://" in str(path):  # object stores show a file when it is whole
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        needed = _tensor_bytes(checkpoint, set()) + _OVERHEAD_BYTES
        if (free := shutil.disk_usage(path.parent).free) < needed:
            raise _no_room(path, needed, free)
        part = path.with_name(path.name + PART)
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:  # torch puts an error of its own around one of the disk
            written = part.stat().st_size if part.exists() else 0
            part.unlink(missing_ok=True)
            if any(isinstance(cause, OSError) for cause in _chain(error)):
                raise _no_room(path, needed, written, error) from error
            raise
        _flush_folder(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; `weights_only` is taken for the sake of the interface and always true.

        Raises:
            InputError: It is the folder of a sharded checkpoint, which only its own strategy reads.
        """
        if os.path.isdir(path):
            raise InputError(
                f"{path} is the folder of a sharded checkpoint, which only shared weights read; legal are `-c fsdp`, "
                "and --ckpt_path of a file or new"
            )
        return super().load_checkpoint(path, map_location, weights_only=True)


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in the folders of a run.

    Attributes:
        path: The newest complete checkpoint; None if there is none.
        step: Its optimizer step.
        skipped: Newer ones that are not complete -> the reason.
    """

    path: Path | None
    step: int
    skipped: dict[Path, str]


def newest_checkpoint(files: Iterable[Path]) -> Search:
    """Return the newest of `files` that a run can resume from; every file of it is read once to check its sums."""
    skipped: dict[Path, str] = {}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            return Search(path, _check(path), skipped)
        except InputError as error:
            skipped[path] = str(error)
    return Search(None, 0, skipped)


def resume_path(trainer: Trainer, asked: str | Path | None) -> str | Path | None:
    """Return the checkpoint that a fit goes on from, and say so in one line; None if it starts.

    Args:
        trainer: Its callbacks and its `default_root_dir` say where checkpoints are.
        asked: `--ckpt_path`: None and `last` take the newest complete checkpoint of the run folder, `new` sets those
            that are there aside; anything else is taken as it is.
    """
    if asked not in (None, "last", NEW) or trainer.fast_dev_run or not trainer.checkpoint_callbacks:  # type: ignore[attr-defined]
        return None if asked == NEW else asked
    files = list(_files(trainer))
    if asked == NEW:
        if files:
            _set_aside(files, Path(trainer.default_root_dir))
        return None
    found = newest_checkpoint(path for path in files if not path.is_symlink())
    skipped = "".join(f"; skipped {path.name}: {reason}" for path, reason in found.skipped.items())
    if found.path:
        rank_zero_info(f"resuming at step {found.step} from {found.path}{skipped}; --ckpt_path {NEW} starts anew")
    elif skipped:
        rank_zero_info(f"starting anew, because no checkpoint is complete{skipped}")
    return found.path


def _files(trainer: Trainer) -> Iterator[Path]:
    """Every checkpoint of a run, complete or not, and what SLURM's requeue left in the run folder."""
    root = Path(trainer.default_root_dir)
    folders = {root / "checkpoints"}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath and "://" not in str(callback.dirpath):
            folders.add(Path(callback.dirpath))
    yield from sorted(root.glob("hpc_ckpt_*.ckpt"))
    for folder in folders:
        yield from sorted([*folder.glob("*.ckpt"), *folder.glob(f"*.ckpt{PART}")])


@rank_zero_only
def _set_aside(files: list[Path], root: Path) -> None:
    number = 1
    while (folder := root / f"checkpoints.{number}").exists():
        number += 1
    folder.mkdir()
    for path in files:
        os.replace(path, folder / path.name)
    rank_zero_info(f"starting anew; the checkpoints of the earlier run are now in {folder}")


def _check(path: Path) -> int:
    """Return the optimizer step of a checkpoint.

    Raises:
        InputError: It is cut short, damaged, or no run can resume from it.
    """
    if path.suffix == PART:
        raise InputError("its save was interrupted")
    try:
        if path.is_dir():  # of a sharded strategy
            check_folder(path)
            content = torch.load(path / META, map_location="cpu", weights_only=True)
        else:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise InputError(f"{damaged} is damaged")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, _ = int(content["global_step"]), content["loops"]
        _ = content["lr_schedulers"]
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"it has no {error.args[0]}, so no run can resume from it") from error
    except Exception as error:  # what torch says about damaged files is of many kinds
        raise InputError(first_line(error)) from error
    return step


def _tensor_bytes(value: Any, seen: set[int]) -> int:
    """Bytes of the storages of all tensors in a nest of dicts and lists, each counted once."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    if isinstance(value, dict):
        return sum(_tensor_bytes(item, seen) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_tensor_bytes(item, seen) for item in value)
    return 0


def _no_room(path: Path, needed: int, free: int, error: Exception | None = None) -> InputError:
    why = f" ({first_line(next(cause for cause in _chain(error) if isinstance(cause, OSError)))})" if error else ""
    return InputError(
        f"no room for the checkpoint {path}: it needs {needed / 2**20:.1f} MiB and {free / 2**20:.1f} MiB are free, "
        f"{max(needed - free, 0) / 2**20:.1f} MiB too little{why}; free some and rerun the same command, which goes on "
        "from the checkpoint before it"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _flush_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
