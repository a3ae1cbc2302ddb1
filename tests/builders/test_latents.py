"""Latents as a shard set: their values, the records beside them, what is fed from them, and when they are refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_lightning.batch import Clip
from insvie_lightning.builders.latents import EncodeLatents, Unfaithful
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import decode_latents, encode_pixels, encode_posterior, to_device_pixels
from insvie_lightning.shards.latents import (
    LATENTS,
    LOG_VARIANCES,
    NOISE_SHIFT,
    SIDES,
    LatentRecipe,
    read_recipe,
    unpack_latents,
)
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.components import hash_encoder, load_vae


def encode(shards: Path, output: Path, *options: str) -> int:
    paths = [f"--data.shards={shards}", f"--model.output={output}"]
    form = ["--model.frames=9", "--model.size=[64, 96]", "--data.num_workers=0", "--data.batch_size=5"]
    run = [f"--trainer.default_root_dir={output}-run", "--trainer.enable_progress_bar=false"]
    plain = ["--trainer.precision=32-true", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    toy = ["--model.base=toy", "--model.shard_size=16"]
    return main(["predict", "-c", "build_latents", *paths, *form, *run, *plain, *toy, *options])


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("shard-*")}


@pytest.fixture(scope="module")
def latents(toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    assert encode(toy_shards, folder) == 0
    return folder


@torch.no_grad()
def test_latents_are_those_of_the_clips_and_decode_to_them(toy_shards: Path, latents: Path) -> None:
    vae = load_vae("toy").eval()
    encoded = {record["key"]: load(members[LATENTS]) for record, members in iterate_samples(latents)}
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


def test_videos_are_kept_as_they_are(toy_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    assert encode(toy_shards, kept, "--model.keep_source=true", "--model.keep_edited=true") == 0
    before = {record["key"]: members for record, members in iterate_samples(toy_shards)}
    for record, members in iterate_samples(kept):
        assert members.keys() == {"source.mp4", "edited.mp4", LATENTS, "json"}
        assert all(members[name] == before[record["key"]][name] for name in ("source.mp4", "edited.mp4"))
    drawn = ["predict", "-c", "build_latents", "--data=ToyScenes", "--data.samples=2", "--model.base=toy"]
    drawn += [f"--model.output={tmp_path / 'drawn'}", "--model.frames=9", "--model.size=[64, 96]"]
    run = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--trainer.default_root_dir={tmp_path}"]
    assert main([*drawn, *run, "--model.keep_edited=true"]) == 2
    assert "latents is to keep edited.mp4, and 'toy-train-0000000' comes without" in capfd.readouterr().err


def test_every_file_says_how_it_was_made(latents: Path) -> None:
    for _, members in iterate_samples(latents):
        recipe = LatentRecipe(hash_encoder("toy"), 9, (64, 96), "cover", "bfloat16", "moments")
        assert read_recipe(members[LATENTS]) == recipe


def test_records_are_carried_over(toy_shards: Path, latents: Path) -> None:
    storage = {"shard", "members", "tar_sha256", "tar_bytes"}
    before, after = ({row["key"]: row for row in open_manifest(f).query().to_pylist()} for f in (toy_shards, latents))
    assert list(after) == list(before)
    for key, row in before.items():
        same = row.keys() - storage - {"lineage"}
        assert {"origin", "instruction", "judge", "epe_px", "edit_type", "source_caption", "fps"} <= same
        assert {name: after[key][name] for name in same} == {name: row[name] for name in same}
        lineage = json.loads(after[key]["lineage"])
        made = lineage.pop("latents")
        assert (made["base"], made["settings"]["dtype"], made["settings"]["size"]) == ("toy", "bfloat16", [64, 96])
        assert made["settings"]["encoder"] == hash_encoder("toy")
        assert lineage == json.loads(row["lineage"])
        assert [member["name"] for member in after[key]["members"]] == [LATENTS, "json"]
    assert verify(latents).problems == ()


def test_a_rerun_adds_nothing(toy_shards: Path, latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(latents)
    monkeypatch.setattr("insvie_lightning.builders.latents.encode_posterior", None)
    assert encode(toy_shards, latents) == 0
    assert files(latents) == before and len(before) >= 4


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--model.frames=5", "settings.frames"),
        ("--model.size=[32, 48]", "settings.size"),
        ("--model.dtype=float32", "settings.dtype"),
        ("--model.posterior=mean", "settings.posterior"),
        ("--trainer.precision=bf16-mixed", "settings.precision"),
        ("--data.limit=8", "input.limit"),
    ],
)
def test_a_rerun_that_would_make_others_is_refused(
    toy_shards: Path, latents: Path, option: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(latents)
    assert encode(toy_shards, latents, option) != 0
    assert f"holds another job: its {name} is" in capsys.readouterr().err
    assert files(latents) == before


def test_another_autoencoder_or_other_content_is_refused(
    toy_shards: Path, latents: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("insvie_lightning.builders.latents.hash_encoder", lambda base: "other")
    assert encode(toy_shards, latents) != 0
    assert "its settings.encoder is" in capsys.readouterr().err
    monkeypatch.undo()
    job = json.loads((latents / "job.json").read_text())
    content = job["input"]["sha256_of_tars"]
    assert len(content) == 64
    (latents / "job.json").write_text(json.dumps(job).replace(content, "0" * 64))
    assert encode(toy_shards, latents) != 0
    assert "its input.sha256_of_tars is" in capsys.readouterr().err
    (latents / "job.json").write_text(json.dumps(job))


def test_what_does_not_decode_back_stops_the_job(
    toy_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(toy_shards, tmp_path / "a", "--model.min_psnr_db=60") != 0
    said = capsys.readouterr().err
    assert "decode back at" in said and "at least 60 are needed" in said
    assert not list((tmp_path / "a").glob("shard-*"))


def test_a_share_of_the_samples_is_decoded_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder = EncodeLatents(tmp_path, "toy", frames=5, verified_share=0.5, min_psnr_db=22.0)
    builder.configure_model()
    triplets = [to_triplet(example("train", index), 5, 32, 48) for index in range(12)]
    builder.make(triplets)
    assert 2 <= builder._verified <= 10
    seen: list[str] = []
    monkeypatch.setattr(builder, "_verify", lambda key, *_: seen.append(key))
    builder.make(triplets)
    assert len(seen) in (builder._verified, builder._verified - 1)  # the first one is always among them
    builder.verified_share = 0.0
    monkeypatch.undo()
    vae_decode = builder.vae.decode
    monkeypatch.setattr(builder.vae, "decode", lambda z: vae_decode(torch.zeros_like(z)))
    builder._verified = 0
    with pytest.raises(Unfaithful, match=rf"of '{triplets[0].key}' decode back at .* dB"):
        builder.make(triplets)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"frames": 8}, "frames is 8; .* did you mean 5"), ({"size": (60, 96)}, "size is 60x96; .* multiples of 16")],
)
def test_illegal_shapes_are_one_sentence(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        EncodeLatents(tmp_path, "toy", **change)


def test_clips_are_brought_to_frames_and_size(tmp_path: Path) -> None:
    builder = EncodeLatents(tmp_path, "toy", frames=5, size=(32, 32), resize="stretch", dtype="float32")
    builder.configure_model()
    triplet = to_triplet(example("train", 0), 9, 64, 96)
    (packed,) = builder.make([triplet])
    assert packed.sample.source.frames.shape == (5, 3, 32, 32)  # type: ignore[union-attr]
    assert unpack_latents(packed.members[LATENTS])["edited"].shape == (2, 16, 4, 4)  # type: ignore[union-attr]
    odd = replace(triplet, source=Clip(triplet.source.frames[:, :, :30], 8.0))
    builder.resize = "cover"
    builder.size = None
    with pytest.raises(InputError, match="differ in shape"):
        builder.make([odd])


@torch.no_grad()
@pytest.mark.parametrize("posterior", ["mean", "moments"])
def test_what_is_stored_of_the_posterior_and_of_noise(tmp_path: Path, posterior: Any) -> None:
    builder = EncodeLatents(tmp_path, "toy", frames=5, dtype="float32", posterior=posterior)
    builder.configure_model()
    triplets = [to_triplet(example("train", index), 5, 32, 48) for index in range(2)]
    first, other = (packed.members[LATENTS] for packed in builder.make(triplets))  # type: ignore[union-attr]
    stored = unpack_latents(first)
    assert read_recipe(first).posterior == posterior  # type: ignore[union-attr]
    for side, clip in (("source", triplets[0].source), ("edited", triplets[0].edited)):
        mean, log_variance = encode_posterior(builder.vae, to_device_pixels(torch.from_numpy(clip.frames)[None]))
        torch.testing.assert_close(stored[side], mean[0], rtol=1e-5, atol=1e-5)
        if posterior == "moments":
            torch.testing.assert_close(stored[f"{side}_log_variance"], log_variance[0])
    assert stored.keys() == {*SIDES, NOISE_SHIFT} | ({*LOG_VARIANCES} if posterior == "moments" else set())
    assert stored[NOISE_SHIFT].shape == (4, 2, 2, 16) and (stored[NOISE_SHIFT][:, 1] > 0).all()
    assert not torch.equal(stored[NOISE_SHIFT], unpack_latents(other)[NOISE_SHIFT])
    (again,) = builder.make(triplets[:1])
    assert again.members[LATENTS] == first  # type: ignore[union-attr]
    builder.measure_noise = False
    (without,) = builder.make(triplets[:1])
    del stored[NOISE_SHIFT]
    found = unpack_latents(without.members[LATENTS])  # type: ignore[union-attr]
    assert found.keys() == stored.keys() and all(torch.equal(found[name], stored[name]) for name in stored)


def test_a_stage_on_latents_decodes_no_video(latents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a video was decoded")

    monkeypatch.setattr("insvie_data_modules.samples.decode_triplet", refuse)
    monkeypatch.setattr("insvie_data_modules.samples.read_clip", refuse)
    monkeypatch.setattr("insvie_lightning.video.read_clip", refuse)
    expected = {record["key"]: load(members[LATENTS]) for record, members in iterate_samples(latents)}
    stages = [Stage("s2", 3, where="judge >= 4 and epe_px <= 2")]
    data = Curriculum(latents, stages, batch_size=4, frames=9, size=(64, 96))
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert batch.source is None and batch.edited is None and batch.windows == ()
        for place, key in enumerate(batch.keys):
            assert torch.equal(batch.source_latents[place], expected[key]["source"].float())
            assert torch.equal(batch.edited_latents[place], expected[key]["edited"].float())
