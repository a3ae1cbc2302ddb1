"""Doors through which real files come in: where a toy file was spoilt lies a real one, byte for byte, among toys."""

import csv
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import run_doors
import shard_doors
import source_doors
from door import Door, clip

from insvie_lightning.shards.convert import convert
from insvie_lightning.video import write_clip


def real_videos(folder: Path, real: Path) -> None:
    source_doors.videos(folder)
    _put(_smallest(real / "videos"), folder / "b.mp4")


def real_run(folder: Path, real: Path) -> None:
    run_doors.run_folder(folder)
    _put(_smallest(real / "videos"), folder / "samples/step-000010/b.source.mp4")


def real_benchmark(folder: Path, real: Path) -> None:
    source_doors.tgve(folder)
    _put(_smallest(real / "tgve/DAVIS_480p/480p_videos"), folder / "DAVIS_480p/480p_videos/b.mp4")


def real_pictures(folder: Path, real: Path) -> None:
    source_doors.pictures(folder)
    (folder / "b.png").unlink()
    _put(_smallest(real / "images"), folder / "b.jpg")


def real_pairs(folder: Path, real: Path) -> None:
    source_doors.instruct_pairs(folder)
    for side in (0, 1):
        _put(_smallest(real / "images"), folder / f"b/1_{side}.jpg")


def real_folders(folder: Path, real: Path) -> None:
    shard_doors.released_folders(folder)
    for side in ("source", "edited"):
        _put(real / "triplets" / side / _names(real)[0], folder / side / "b.mp4")


def real_zips(folder: Path, real: Path) -> None:
    shard_doors.release(folder)
    for side in ("source", "edited"):
        with zipfile.ZipFile(folder / f"{side}_00.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(real / "triplets" / side / _names(real)[0], "x/b.mp4")


def real_shards(folder: Path, real: Path) -> None:
    """The first of two shards begins with a real edit."""
    laid, made = folder.with_name("laid"), folder.with_name("made")
    for side in ("source", "edited"):
        _put(real / "triplets" / side / _names(real)[0], laid / side / "u.mp4")
        for key in "vw":
            write_clip(laid / side / f"{key}.mp4", clip())
    (laid / "train.csv").write_text("video,instruct\nu.mp4,red\nv.mp4,blue\nw.mp4,green\n")
    convert(laid, made)
    shard_doors.shards(folder)
    for path in made.glob("shard-000000.*"):
        shutil.move(path, folder / path.name)


def real_edits(folder: Path, real: Path) -> None:
    """The table of the edits; under the names in it lie toy videos."""
    for name in _names(real):
        write_clip(folder / name, clip())
    _put(real / "triplets/train.csv", folder / "edits.csv")


def real_set(folder: Path, real: Path) -> None:
    """The same as a data set."""
    for name in _names(real):
        for side in ("source", "edited"):
            write_clip(folder / side / name, clip())
    _put(real / "triplets/train.csv", folder / "train.csv")


def real_tgve(folder: Path, real: Path) -> None:
    """The table of TGVE and its instructions; under the names in them lie toy videos."""
    for video in (real / "tgve").glob("*_480p/480p_videos/*.mp4"):
        write_clip(folder / video.relative_to(real / "tgve"), clip())
    for path in (real / "tgve").glob("*.csv"):
        _put(path, folder / "tgve.csv")
    _put(real / "tgve/instructions.json", folder / "instructions.json")


def _smallest(folder: Path) -> Path:
    return min(folder.iterdir(), key=lambda path: (path.stat().st_size, path.name))


def _names(real: Path) -> list[str]:
    """The videos of the edits, the smallest first."""
    with (real / "triplets/train.csv").open(encoding="utf-8", newline="") as file:
        names = [row["source_video"] for row in csv.DictReader(file)]
    return sorted(names, key=lambda name: (real / "triplets/edited" / name).stat().st_size)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


FILLS: dict[tuple[str, str], Callable[[Path, Path], None]] = {
    ("video", "RawVideos"): real_videos,
    ("video", "EditFolder"): real_videos,
    ("video", "insvie edit --csv"): real_videos,
    ("video", "insvie shards convert"): real_folders,
    ("video", "Tgve"): real_benchmark,
    ("video", "TgvePlus"): real_benchmark,
    ("video", "insvie report, a sample"): real_run,
    ("picture", "Images"): real_pictures,
    ("picture", "ImagePairs"): real_pairs,
    ("CSV", "EditFolder"): real_edits,
    ("CSV", "insvie edit --csv"): real_edits,
    ("CSV", "insvie shards convert"): real_set,
    ("CSV", "Tgve"): real_tgve,
    ("JSON", "Tgve, instructions"): real_tgve,
    ("tar", "Curriculum"): real_shards,
    ("tar", "Drafts"): real_shards,
    ("tar", "iterate_samples"): real_shards,
    ("tar", "insvie shards verify"): real_shards,
    ("tar", "insvie report"): real_shards,
    ("manifest", "Curriculum"): real_shards,
    ("manifest", "Drafts"): real_shards,
    ("manifest", "insvie shards verify"): real_shards,
    ("manifest", "insvie explain"): real_shards,
    ("zip", "insvie shards convert"): real_zips,
    ("zip", "insvie shards index, Curriculum"): real_zips,
}
"""Kind and name of a toy door -> what lays real files there."""


def _real(toy: Door) -> Door:
    door = replace(toy, fill=FILLS[toy.kind, toy.name], files="real")
    if door.fill is real_pictures:
        return replace(door, victim="b.jpg")
    if door.fill in (real_edits, real_set):  # rows behind the spoilt one
        return replace(door, neighbours=frozenset({"red-roses-sunny-day_background", "swans_object"}))
    return door


_TOY = (*source_doors.DOORS, *shard_doors.DOORS, *run_doors.DOORS)
DOORS = tuple(_real(door) for door in _TOY if (door.kind, door.name) in FILLS)
