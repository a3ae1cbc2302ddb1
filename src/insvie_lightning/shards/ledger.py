"""The ledger of a job: who works on which unit of its input, kept as files on a disk that all workers share.

Unit n of the input becomes shard n of the output. A unit is finished when its shard is; it is claimed while there is a
file of its number in `.claims`. Files are all there is: no server, no scheduler, and nothing to repair after a crash.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from insvie_lightning.shards.manifest import finished_shards

CLAIMS = ".claims"


@dataclass(frozen=True)
class Owner:
    """A process that can be told from every other.

    Attributes:
        host: Name of the machine, and of the space in which its process numbers are unique.
        pid: Process number.
        started: When it started, since numbers are used again.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(_host(), os.getpid(), _started(os.getpid()))

    @property
    def alive(self) -> bool:
        """Whether the process runs, which only its own machine can tell."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _started(self.pid) == self.started


class Ledger:
    """The units of one job, as one process sees them.

    Any number of processes and jobs may work on one folder: each claims what is free. A claim is a file that only one
    can create; its owner touches it while it lives. The claim of a dead process, or of another machine's that was not
    touched for long, is taken over by creating the file of the next generation, so that two cannot both succeed.

    Args:
        folder: Where the shards are written; made if absent.
        units: Number of units.
        stale_seconds: A claim of another machine is stale when it was not touched for so long, by this one's clock.
    """

    def __init__(self, folder: Path, units: int, stale_seconds: float = 300.0) -> None:
        self.folder, self.units, self.stale_seconds = folder, units, stale_seconds
        self._owner = Owner.here()
        self._claims = folder / CLAIMS
        self._held: dict[int, Path] = {}
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._beat: threading.Thread | None = None
        self._claims.mkdir(parents=True, exist_ok=True)

    @property
    def owner(self) -> Owner:
        """This process, in a forked one, too."""
        if self._owner.pid != os.getpid():
            self._owner = Owner.here()
        return self._owner

    @property
    def writer(self) -> str:
        """A part of file names that no other process uses."""
        return f"{self.owner.host.partition(' ')[0][:40]}-{self.owner.pid}"

    def finished(self) -> set[int]:
        """Return the numbers of the finished units."""
        return {int(part.stem.removeprefix("shard-")) for part in finished_shards(self.folder)}

    def unfinished(self) -> list[int]:
        """Return the numbers of the units that are not finished, claimed or not, in order."""
        finished = self.finished()
        return [unit for unit in range(self.units) if unit not in finished]

    def claim(self, unit: int) -> bool:
        """Take a unit if it is neither finished nor in the hands of a live process."""
        if self._part(unit).exists():
            return False
        generations = self._generations(unit)
        if generations and not self._stale(generations[-1]):
            return False
        last = _number(generations[-1]) if generations else -1
        path = self._claims / f"{unit:06d}.{last + 1}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except (FileExistsError, FileNotFoundError):  # another one was faster, or has finished and tidied up
            return False
        try:
            os.write(descriptor, json.dumps(asdict(self.owner)).encode())
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        with self._lock:
            self._held[unit] = path
        if generations:
            for leftover in self.folder.glob(f".shard-{unit:06d}.*.tmp"):
                leftover.unlink(missing_ok=True)
        # The unit may have been finished and let go between the first look and the claim.
        if self._part(unit).exists():
            self.release(unit)
            return False
        if self._beat is None:
            self._beat = threading.Thread(target=self._touch, daemon=True)
            self._beat.start()
        return True

    def holds(self, unit: int) -> bool:
        """Whether this process has claimed a unit and nobody has taken it over since."""
        return unit in self._held and self._generations(unit)[-1:] == [self._held[unit]]

    def release(self, unit: int) -> None:
        """Let a unit go, finished or not."""
        with self._lock:
            path = self._held.pop(unit, None)
        if path is not None:
            for generation in self._generations(unit):
                if _number(generation) <= _number(path):
                    generation.unlink(missing_ok=True)

    def close(self) -> None:
        """Let every unit go and stop touching claims; a ledger may be closed twice."""
        self._closed.set()
        for unit in list(self._held):
            self.release(unit)

    def tidy(self) -> None:
        """Remove what only workers need, once every unit is finished; the dead may have left some of it."""
        shutil.rmtree(self._claims, ignore_errors=True)
        for leftover in chain(self.folder.glob(".shard-*.tmp"), self.folder.glob(".*.json.*.tmp")):
            leftover.unlink(missing_ok=True)

    def _part(self, unit: int) -> Path:
        return self.folder / f"shard-{unit:06d}.parquet"

    def _generations(self, unit: int) -> list[Path]:
        try:
            names = [name for name in os.listdir(self._claims) if name.startswith(f"{unit:06d}.")]
        except FileNotFoundError:  # others have finished everything, and tidied up
            return []
        return sorted((self._claims / name for name in names), key=_number)

    def _stale(self, claim: Path) -> bool:
        try:
            text, touched = claim.read_text(), claim.stat().st_mtime_ns
        except FileNotFoundError:
            return False  # let go just now; the next look sees it free
        now = time.monotonic()
        before, since = self._seen.get(claim, (0, now))
        if before != touched:
            since = now
        self._seen[claim] = (touched, since)
        try:
            owner = Owner(**json.loads(text))
        except (ValueError, TypeError):
            # Its owner died, or is about to write its name.
            return now - since > min(5.0, self.stale_seconds)
        if owner == self.owner:
            return True  # left by an earlier run in this process, or it would be held
        if owner.host == self.owner.host:
            return not owner.alive
        return now - since > self.stale_seconds

    def _touch(self) -> None:
        while not self._closed.wait(min(20.0, self.stale_seconds / 4)):
            with self._lock:
                held = list(self._held.values())
            for path in held:
                with suppress(OSError):
                    os.utime(path)


def _number(claim: Path) -> int:
    return int(claim.suffix[1:])


def _host() -> str:
    """The machine's name; on Linux also the name space of its process numbers, which containers do not share."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process started, in ticks; empty where the system does not say, `dead` for one that only waits to go."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "dead" if state in "ZX" else fields[18]
