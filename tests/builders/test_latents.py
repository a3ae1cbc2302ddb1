"""Latents as a sibling shard set: their values, the records beside them, and what is fed from them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_lightning.cli import main
from insvie_lightning.nets.latents import decode_latents, encode_pixels, to_device_pixels
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.weights.components import load_vae


def encode(shards: Path, output: Path) -> None:
    paths = [f"--data.shards={shards}", f"--model.shards={shards}", f"--model.output={output}"]
    form = ["--data.frames=9", "--data.size=[64, 96]", "--data.num_workers=0", "--data.batch_size=5"]
    run = [f"--trainer.default_root_dir={output}-run", "--trainer.enable_progress_bar=false"]
    options = ["--model.base=toy", "--model.shard_size=16", "--trainer.accelerator=cpu"]
    assert main(["predict", "-c", "build_latents", *paths, *form, *run, *options]) == 0


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("shard-*")}


@pytest.fixture(scope="module")
def latents(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    encode(toy_shards, folder)
    return folder


@torch.no_grad()
def test_latents_are_those_of_the_clips_and_decode_to_them(toy_shards: Path, latents: Path) -> None:
    vae = load_vae("toy").eval()
    encoded = {record["key"]: load(members["latents.safetensors"]) for record, members in iterate_samples(latents)}
    compared = 0
    for record, members in iterate_samples(toy_shards):
        triplet = decode_triplet(record, members["source.mp4"], members["edited.mp4"])
        for side, clip in (("source", triplet.source), ("edited", triplet.edited)):
            pixels = to_device_pixels(torch.from_numpy(clip.frames)[None])
            found = encoded[triplet.key][side]
            assert found.dtype == torch.bfloat16 and found.shape == (3, 16, 8, 12)
            torch.testing.assert_close(found.float(), encode_pixels(vae, pixels)[0], rtol=2**-8, atol=1e-4)
            compared += 1
    assert compared == 2 * len(encoded) == 2 * len(open_manifest(toy_shards).query())
    rebuilt = decode_latents(vae, found[None].float())
    assert (rebuilt - pixels).square().mean() < 0.01


def test_records_are_carried_over(toy_shards: Path, latents: Path) -> None:
    storage = {"shard", "members", "tar_sha256", "tar_bytes"}
    before, after = ({row["key"]: row for row in open_manifest(f).query().to_pylist()} for f in (toy_shards, latents))
    assert list(after) == list(before)
    for key, row in before.items():
        same = row.keys() - storage - {"lineage"}
        assert {"origin", "instruction", "judge", "epe_px", "edit_type", "source_caption", "fps"} <= same
        assert {name: after[key][name] for name in same} == {name: row[name] for name in same}
        lineage = json.loads(after[key]["lineage"])
        assert lineage.pop("latents") == {"base": "toy", "dtype": "bfloat16", "size": [64, 96]}
        assert lineage == json.loads(row["lineage"])
        assert [member["name"] for member in after[key]["members"]] == ["latents.safetensors", "json"]
    assert verify(latents).problems == ()


def test_a_rerun_adds_nothing(toy_shards: Path, latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(latents)
    monkeypatch.setattr("insvie_lightning.builders.latents.encode_pixels", None)
    encode(toy_shards, latents)
    assert files(latents) == before and len(before) >= 4


def test_a_stage_on_latents_decodes_no_video(latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a video was decoded")

    monkeypatch.setattr("insvie_data_modules.samples.decode_triplet", refuse)
    monkeypatch.setattr("insvie_lightning.video.read_clip", refuse)
    expected = {record["key"]: load(members["latents.safetensors"]) for record, members in iterate_samples(latents)}
    data = Curriculum(latents, [Stage("s2", 3, where="judge >= 4 and epe_px <= 2")], batch_size=4, frames=9)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert batch.source is None and batch.edited is None
        for place, key in enumerate(batch.keys):
            assert torch.equal(batch.source_latents[place], expected[key]["source"].float())
            assert torch.equal(batch.edited_latents[place], expected[key]["edited"].float())
