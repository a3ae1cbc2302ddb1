"""One trial: a good folder, one fault in it, and what a user sees."""

import os
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corrupter import OF_ROWS, faults, powerless, spoil
from door import Door

from insvie_lightning.errors import InputError

LATE, NOTHING = "vanishes once listed", "nothing"
SECONDS = 10.0
MEMORY = 6 * 2**30
"""Bytes of addresses that a trial may take: one that reads an endless file fails, and not the machine."""
Ending = Literal["refused", "set aside", "read", "FAULT"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Attributes:
        ending: One sentence instead of any work; the spoilt sample set aside; nothing noticed, as where what is left
            is still legal; or a fault of the program.
        said: The sentence, the reason, or what is wrong with the program.
    """

    door: Door
    fault: str
    ending: Ending
    said: str
    seconds: float


def fault_names(door: Door) -> list[str]:
    """Every fault that is tried at a door."""
    return [fault for fault in (*faults(door.kind), LATE) if fault not in door.legal]


def attempt(door: Door, fault: str, good: Path, folder: Path, seed: int = 0) -> Outcome:
    """Copy a good folder, spoil its victim, and go through the door."""
    shutil.copytree(good, folder, symlinks=True)
    victim = folder / door.victim
    here = os.getcwd()
    os.chdir(folder)  # where hostile code would leave its mark
    start = time.monotonic()
    try:
        if fault not in (LATE, NOTHING):
            spoil(victim, door.kind, fault, seed)
        start = time.monotonic()
        with _little_memory(), powerless() if fault == "permission denied" else nullcontext():
            found = door.use(folder, victim.unlink if fault == LATE else lambda: None)
        ending: Ending = "set aside" if found.bad else "read"
        lost = door.neighbours - found.good if not door.shared or fault in OF_ROWS else frozenset()
        said = "; ".join(dict.fromkeys(found.bad.values()))
        if lost:
            ending, said = "FAULT", f"lost {', '.join(sorted(lost))}; set aside: {found.bad}"
        elif any(_unclear(reason) for reason in found.bad.values()):
            ending = "FAULT"
    except InputError as error:
        ending, said = "refused", str(error).strip()
        if door.neighbours and fault not in door.refused and (not door.shared or fault in OF_ROWS):
            ending, said = "FAULT", f"all refused for one file: {said}"
        elif _unclear(said):
            ending, said = "FAULT", f"no single sentence: {said!r}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "insvie_" in frame.filename]
        ending, said = "FAULT", f"{type(error).__name__}: {str(error)[:200]!r} at {' '.join(ours[-3:])}"
    finally:
        os.chdir(here)
    seconds = time.monotonic() - start
    if (folder / "hacked").exists():
        ending, said = "FAULT", "code from the file was run"
    if seconds > SECONDS and fault != NOTHING:  # which loads the libraries
        ending, said = "FAULT", f"took {seconds:.1f} s; {said}"
    shutil.rmtree(folder)
    return Outcome(door, fault, ending, said, seconds)


def _unclear(sentence: str) -> bool:
    return not sentence or "\n" in sentence or len(sentence) > 700


@contextmanager
def _little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Larder:
    """Good folders, each made once.

    Args:
        folder: Where they are made.
        real: Gives the folder of real files.
    """

    def __init__(self, folder: Path, real: Callable[[], Path]) -> None:
        self.folder, self.real = folder, real
        self._made: dict[Callable[..., None], Path] = {}

    def __getitem__(self, door: Door) -> Path:
        if door.fill not in self._made:
            folder = self.folder / door.fill.__name__
            door.fill(folder, self.real()) if door.files == "real" else door.fill(folder)
            self._made[door.fill] = folder
        return self._made[door.fill]
