"""The doors of data sets: those that are published, and shards with their manifests."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from corrupter import PLACES
from door import NAMES, Between, Door, Found, clip, command, from_inputs

from insvie_lightning.batch import Triplet
from insvie_lightning.quarantine import Quarantine, read_quarantine
from insvie_lightning.shards.latents import LatentRecipe, pack_latents
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip


def shards(folder: Path) -> None:
    with ShardWriter(folder, shard_size=3) as writer:
        for number, key in enumerate("uvwxyz"):
            origin: Any = "static" if number % 2 else "real"
            source, edited = clip(number), clip(number + 3)
            writer.write(Triplet(key, source, edited, f"do {key}", origin=origin, scores={"judge": 5.0}))


def compacted(folder: Path) -> None:
    from insvie_lightning.shards.compact import compact

    shards(folder)
    compact(folder)


def latents(folder: Path) -> None:
    recipe = LatentRecipe("an encoder", frames=5, size=(32, 48), resize="cover", dtype="float32")
    with ShardWriter(folder, shard_size=1) as writer:
        for key in "xy":
            data = pack_latents({"source": torch.zeros(2, 16, 4, 6), "edited": torch.ones(2, 16, 4, 6)}, recipe)
            writer.write_members({"key": key, "instruction": "do"}, {"latents.safetensors": data})
    row = pq.read_table(folder / "shard-000000.parquet").to_pylist()[0]["members"]
    place = next(member for member in row if member["name"] == "latents.safetensors")
    tar = (folder / "shard-000000.tar").read_bytes()
    (folder / "victim").write_bytes(tar[place["offset"] : place["offset"] + place["size"]])


def release(folder: Path) -> None:
    """Zips as released: `b` lies in `source_00.zip`, `a` and `c` in `source_01.zip`."""
    folder.mkdir(parents=True)
    encoded = folder / "clip.mp4"
    write_clip(encoded, clip())
    data = encoded.read_bytes()
    encoded.unlink()
    for side in ("source", "edited"):
        for number, names in enumerate(("b", "ac")):
            with zipfile.ZipFile(folder / f"{side}_{number:02d}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.writestr(f"x/{name}.mp4", data)
    (folder / "train.csv").write_text("video,instruct\na.mp4,red\nb.mp4,blue\nc.mp4,green\n")


def released_folders(folder: Path) -> None:
    for side in ("source", "edited"):
        for name in NAMES:
            write_clip(folder / side / f"{name}.mp4", clip())
    (folder / "train.csv").write_text("video,instruct\na.mp4,red\nb.mp4,blue\nc.mp4,green\n")


def named_folders(folder: Path) -> None:
    released_folders(folder)
    (folder / "train.csv").unlink()
    (folder / "instructions.json").write_text(json.dumps({f"{name}.mp4": f"do {name}" for name in NAMES}))


def built(folder: Path) -> None:
    shards(folder)
    (folder / "job.json").write_text(json.dumps({"step": "x", "input": {"samples": 6}, "shard_size": 3}))


def convert(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.convert import convert
    from insvie_lightning.shards.manifest import open_manifest

    zips = {"source_dir": "source*.zip", "edited_dir": "edited*.zip"} if list(folder.glob("*.zip")) else {}
    between()
    convert(folder, folder / "shards", max_bad_rate=1.0, **zips)
    rows = open_manifest(folder / "shards").query(accepted_only=False).to_pylist()
    rejected = {row["key"]: row["reason"] for row in rows if not row["accepted"]}
    return Found({row["key"] for row in rows} - rejected.keys(), rejected)


def index(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.index import index

    index(folder, folder / "shards", max_bad_rate=1.0, source_dir="source*.zip", edited_dir="edited*.zip")
    return curriculum_of(folder / "shards", folder / "run", between)


def curriculum_of(data: Path, run: Path, between: Between = lambda: None) -> Found:
    from insvie_data_modules.curriculum import Curriculum, Stage

    module = Curriculum(data, [Stage("all", steps=6)], batch_size=1, frames=5, size=(32, 48), max_bad_rate=1.0)
    dataset: Any = module.train_dataloader().dataset
    dataset.quarantine = Quarantine(run / "quarantine.jsonl", 1.0)
    between()
    good = {dataset[number][1].key for number in range(6)}
    return Found(good, read_quarantine(run / "quarantine.jsonl"))


def curriculum(folder: Path, between: Between) -> Found:
    return curriculum_of(folder, folder, between)


def latents_in_tar(folder: Path, between: Between) -> Found:
    """The spoilt tensors take the place of good ones in a tar of their own."""
    between()
    data = (folder / "victim").read_bytes()
    (folder / "victim").unlink()
    for path in folder.glob("shard-000000.*"):
        path.unlink()
    with ShardWriter(folder / "new", shard_size=1) as writer:
        writer.write_members({"key": "x", "instruction": "do"}, {"latents.safetensors": data})
    from insvie_data_modules.curriculum import Curriculum, Stage

    module = Curriculum(
        [folder, folder / "new"], [Stage("all", steps=4)], batch_size=1, frames=5, size=(32, 48), max_bad_rate=1.0
    )
    dataset: Any = module.train_dataloader().dataset
    dataset.quarantine = Quarantine(folder / "quarantine.jsonl", 1.0)
    good = {dataset[number][1].key for number in range(4)}
    return Found(good, read_quarantine(folder / "quarantine.jsonl"))


def iterate(folder: Path, between: Between) -> Found:
    from insvie_lightning.shards.read import iterate_samples

    bad: dict[str, str] = {}
    between()
    good = {record["key"] for record, _ in iterate_samples(folder, on_bad=bad.__setitem__)}
    return Found(good, bad)


def drafts(folder: Path, between: Between) -> Found:
    from insvie_data_modules.drafts import Drafts

    return from_inputs(Drafts(folder), between)


def verify(folder: Path, between: Between) -> Found:
    between()
    found = command("shards", "verify", str(folder))
    named = " ".join(found.bad)
    return Found({key for key in "xyz" if f": {key}: " not in named}, found.bad)


def stats(folder: Path, between: Between) -> Found:
    between()
    return command("shards", "stats", str(folder))


def select(folder: Path, between: Between) -> Found:
    between()
    return command("shards", "select", str(folder), str(folder / "new"), "--where", "judge > 1")


def explain(folder: Path, between: Between) -> Found:
    between()
    return command("explain", "x", str(folder))


_AC, XYZ = frozenset("ac"), frozenset("xyz")
DOORS = (
    Door("video", "insvie shards convert", released_folders, "edited/b.mp4", convert, _AC),
    Door("CSV", "insvie shards convert", released_folders, "train.csv", convert, _AC, shared=True),
    Door("CSV", "insvie shards index", release, "train.csv", index, _AC, shared=True),
    Door("JSON", "insvie shards convert", named_folders, "instructions.json", convert, shared=True),
    Door("JSON", "Drafts, the job", built, "job.json", drafts, shared=True),
    Door("zip", "insvie shards convert", release, "source_00.zip", convert, _AC),
    Door("zip", "insvie shards index, Curriculum", release, "source_00.zip", index, _AC),
    Door("tar", "Curriculum", shards, "shard-000000.tar", curriculum, XYZ),
    Door("tar", "Drafts", shards, "shard-000000.tar", drafts, XYZ),
    Door("tar", "iterate_samples", shards, "shard-000000.tar", iterate, XYZ),
    Door("tar", "insvie shards verify", shards, "shard-000000.tar", verify, XYZ),
    Door("manifest", "Curriculum", shards, "shard-000000.parquet", curriculum, XYZ, shared=True),
    Door("manifest", "Drafts", shards, "shard-000000.parquet", drafts, XYZ, shared=True),
    Door("manifest", "Drafts, the compact one", compacted, "manifest.parquet", drafts, XYZ, shared=True),
    Door("manifest", "insvie shards verify", shards, "shard-000000.parquet", verify, XYZ),
    Door("manifest", "insvie shards stats", shards, "shard-000000.parquet", stats, shared=True),
    Door("manifest", "insvie shards select", shards, "shard-000000.parquet", select, shared=True),
    Door("manifest", "insvie explain", shards, "shard-000000.parquet", explain, shared=True),
    Door("safetensors", "Curriculum, cached latents", latents, "victim", latents_in_tar, frozenset("y"),
         legal=frozenset({*PLACES, "vanishes once listed"})),  # the tensors have no place of their own,
)  # fmt: skip
