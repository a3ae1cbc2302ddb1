"""Open a data set in the released layout, a CSV of a million rows with source and edited zips, and read from it.

Command:  python benchmarks/released_data.py [--rows 1000000] [--keep DIR]
Hardware: any CPU with Linux, 600 MB of disk for a million rows; two to three minutes in all.
Result:   seconds and peak memory of each way, at a tenth of the rows and at all of them:
            names    the plain way: all rows and the directories of all zips in memory (what a Dataset class does)
            index    `insvie shards index`, once: the manifest beside the CSV
            open     what every training process does: rows, clause, streams and order of a Curriculum on that manifest
          and how many members a second are read at random, by the manifest and by Python's zipfile.

Memory is the peak resident size over that of the imports, and for `open` how much of it is private afterwards: the rest
are pages of the rows' file, which the kernel may drop. Videos are a few bytes each and are not decoded.
"""

from __future__ import annotations

import argparse
import csv
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

ZIPS = {"source": 18, "edited": 19}
PREFIXES = ("pexel-static-", "pexel-", "openvid_", "magicbrush_", "instructp2p_")
READS = 20_000


def write_release(folder: Path, rows: int) -> None:
    """Write `train.csv`, `source/*.zip` and `edited/*.zip` with as many zips as the release has."""
    names = [f"{PREFIXES[i % 5]}{i // 3:07d}_{i % 3}_{i % 7}_{i % 11}.mp4" for i in range(rows)]
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "instruct"])
        writer.writerows([name, f"make the scene number {i % 85399} snowy"] for i, name in enumerate(names))
    for side, count in ZIPS.items():
        (folder / side).mkdir()
        for number in range(count):
            with zipfile.ZipFile(folder / side / f"{side}_{number:02d}.zip", "w") as archive:
                for name in names[number::count]:
                    archive.writestr(zipfile.ZipInfo(f"{side}_{number:02d}/{name}"), name.encode())


def names(folder: Path) -> Callable[[int], bytes]:
    """Hold every row and every zip's directory in memory; return a reader of the edited video of a row."""
    with (folder / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    members = {}
    for side in ZIPS:
        archives = [zipfile.ZipFile(path) for path in sorted((folder / side).glob("*.zip"))]
        members[side] = {info.filename.rpartition("/")[2]: (zip, info) for zip in archives for info in zip.infolist()}

    def read(number: int) -> bytes:
        archive, info = members["edited"][rows[number][0]]
        return archive.read(info)

    return read


def index(folder: Path) -> None:
    """Write the manifest."""
    from insvie_lightning.shards.index import index

    assert not index(folder).rejected


def open_curriculum(folder: Path) -> Callable[[int], bytes]:
    """Plan a stage as training does; return a reader of the edited video of a row."""
    from insvie_data_modules import Curriculum, Stage
    from insvie_lightning.shards.read import read_members

    data = Curriculum(folder, [Stage("s3", 10_000, "instruction LIKE '%snowy'", static_to_real="1:4")])
    rows = data.train_dataloader().dataset.stages[0].rows  # type: ignore[attr-defined]
    return lambda number: read_members(folder, rows.slice(number, 1).to_pylist()[0])["edited.mp4"]


def measure(way: str, folder: Path, rows: int) -> None:
    """Run one way in this process; print its seconds, megabytes (peak, private) and reads a second."""
    import insvie_data_modules  # noqa: F401
    import insvie_lightning.shards.index  # noqa: F401

    before, private_before, start = _peak_megabytes(), _private_megabytes(), time.perf_counter()
    read = {"names": names, "index": index, "open": open_curriculum}[way](folder)  # type: ignore[operator]
    seconds, peak = time.perf_counter() - start, _peak_megabytes() - before
    private = _private_megabytes() - private_before
    rate = float("nan")
    if read:
        drawn = random.Random(0).choices(range(rows), k=READS)
        start = time.perf_counter()
        assert all(b".mp4" in read(number) for number in drawn)
        rate = READS / (time.perf_counter() - start)
    print(f"{seconds} {peak} {private} {rate}")


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _private_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def compare(folder: Path, rows: int) -> None:
    """Run every way in a process of its own on a new release; print a line each."""
    start = time.perf_counter()
    write_release(folder, rows)
    print(f"{rows} rows, written in {time.perf_counter() - start:.0f} s")
    for way in ("names", "index", "open"):
        command = [sys.executable, __file__, "--way", way, "--keep", str(folder), "--rows", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak, private, rate = map(float, done.stdout.split())
        reads = f"  {rate:7.0f} reads/s" if rate == rate else ""
        print(f"  {way:5}  {seconds:6.2f} s  {peak:6.0f} MB, private {private:6.0f} MB{reads}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument("--keep", type=Path, help="write the data set here, and leave it")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args.way, args.keep, args.rows)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "pyarrow"))
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}"
    )
    for rows in (args.rows // 10, args.rows):
        with tempfile.TemporaryDirectory() as temporary:
            folder = (args.keep or Path(temporary)) / str(rows)
            folder.mkdir(parents=True)
            compare(folder, rows)


if __name__ == "__main__":
    main()
