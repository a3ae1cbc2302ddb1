"""Clips whose first frame was edited: what is taken of the source, what comes out, and what cannot be edited."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lightning import Trainer
from PIL import Image
from torch.distributed.tensor import DTensor

from insvie_data_modules.raw_videos import RawVideos
from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.propagation import Propagation, Propagator
from insvie_lightning.builders.units import Input
from insvie_lightning.builders.videos import BuildVideos, thin_out
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.nets.stable_video import StableVideo
from insvie_lightning.shards.read import iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.video import fit_clip, write_clip

QUICK = Propagation(num_inference_steps=2, strength=1.0)


def clip(frames: int, height: int = 40, width: int = 56, fps: float = 14.0) -> Clip:
    coarse = Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 6, 3), np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return Clip(np.stack([np.roll(picture, index, -1) for index in range(frames)]), fps)


def draft(key: str, source: Clip, edited: np.ndarray | None) -> Draft:
    return Draft(
        key, source, edited, "make it night", "a hill", "a hill at night", scores={"judge": 4}, lineage={"a": 1}
    )


@pytest.fixture(scope="module")
def builder(stable_video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildVideos:
    built = BuildVideos(
        tmp_path_factory.mktemp("videos"), str(stable_video_folder), QUICK, frames=3, size=(32, 48), dtype="float32"
    )
    built.configure_model()
    return built


def test_a_triplet_is_the_thinned_and_cut_source_and_its_edit(builder: BuildVideos, stable_video_folder: Path) -> None:
    source = clip(9)
    edited = 255 - source.frames[0]
    [triplet] = builder.make([draft("hill", source, edited)])
    assert isinstance(triplet, Triplet)
    expected = fit_clip(Clip(source.frames[:5:2], 7.0), (32, 48))
    np.testing.assert_array_equal(triplet.source.frames, expected.frames)
    assert triplet.source.fps == triplet.edited.fps == 7.0
    first = fit_clip(Clip(edited[None], 7.0), (32, 48)).frames[0]
    model = StableVideo.load(str(stable_video_folder), "float32")
    np.testing.assert_array_equal(triplet.edited.frames, Propagator(model, QUICK).edit(expected.frames, first))
    assert (triplet.key, triplet.instruction, triplet.origin) == ("hill", "make it night", "real")
    assert triplet.scores == {"judge": 4}
    assert triplet.lineage == {"a": 1, "BuildVideos": {"source_fps": 14.0, "stride": 2}}


def test_results_do_not_depend_on_what_was_made_before(builder: BuildVideos) -> None:
    source = clip(9)
    drafts = [draft(f"hill-{value}", source, source.frames[0] // value) for value in (2, 3)]
    together, alone = builder.make(drafts), builder.make(drafts[1:])
    assert isinstance(together[1], Triplet) and isinstance(alone[0], Triplet) and isinstance(together[0], Triplet)
    np.testing.assert_array_equal(together[1].edited.frames, alone[0].edited.frames)
    assert not np.array_equal(together[0].edited.frames, alone[0].edited.frames)
    fresh = BuildVideos(builder.output, builder.base, QUICK, frames=3, size=(32, 48), dtype="float32")
    fresh.configure_model()
    [again] = fresh.make(drafts[1:])
    assert isinstance(again, Triplet)
    np.testing.assert_array_equal(again.edited.frames, alone[0].edited.frames)


def test_an_edited_frame_of_another_size_lies_over_the_source(builder: BuildVideos) -> None:
    source = clip(9)
    small = np.full((3, 20, 28), 40, np.uint8)
    large = np.full((3, 80, 112), 40, np.uint8)
    results = builder.make([draft("small", source, small), draft("large", source, large)])
    clips = [result.edited.frames for result in results if isinstance(result, Triplet)]
    np.testing.assert_array_equal(*clips)


@pytest.mark.parametrize(
    ("length", "fps", "stride"),
    [(200, 30.0, 4), (200, 25.0, 4), (200, 8.0, 1), (200, 3.0, 1), (49, 30.0, 2), (48, 60.0, 1), (25, 60.0, 1)],
)
def test_frames_are_taken_from_the_first_on_near_the_told_rate(length: int, fps: float, stride: int) -> None:
    source = Clip(np.arange(length, dtype=np.uint8)[:, None, None, None].repeat(3, 1), fps)
    taken = thin_out(source, 25, 7, "key")
    assert taken.frames[:, 0, 0, 0].tolist() == list(range(0, 25 * stride, stride))
    assert taken.fps == fps / stride


def test_what_cannot_be_edited_is_one_sentence(builder: BuildVideos, tmp_path: Path) -> None:
    good = draft("good", clip(3), clip(1).frames[0])
    with pytest.raises(InputError, match=r"^short: the source has 2 frames, but 3 are needed$"):
        builder.make([good, draft("short", clip(2), good.edited_frame)])
    with pytest.raises(InputError, match=r"^bare: has no edited first frame"):
        builder.make([replace(good, key="bare", edited_frame=None)])
    with pytest.raises(InputError, match="frames is 1; legal are 2 or more"):
        BuildVideos(tmp_path, frames=1)
    odd = BuildVideos(tmp_path, builder.base, size=(30, 50), dtype="float32")
    with pytest.raises(InputError, match="size is 30 x 50; legal are multiples of 8, such as 32 x 48"):
        odd.configure_model()


class _Negative(Builder[Draft]):
    """Stands for the step that edits first frames."""

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        return [replace(draft, edited_frame=255 - draft.source.frames[0], instruction="invert it") for draft in drafts]


def test_the_recipe_goes_on_from_edited_first_frames(stable_video_folder: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "videos/hill.mp4", clip(3, 32, 48, 7.0))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    raw = RawVideos(tmp_path / "videos", frames=3, size=(32, 48))
    Trainer(**quiet, default_root_dir=tmp_path).predict(_Negative(tmp_path / "drafts"), raw)  # type: ignore[arg-type]
    options = [f"--data.shards={tmp_path / 'drafts'}", f"--model.output={tmp_path / 'clips'}", "--data.num_workers=0"]
    options += [
        f"--model.base={stable_video_folder}",
        "--model.frames=3",
        "--model.size=[32, 48]",
        "--trainer.devices=1",
    ]
    options += ["--model.propagation.num_inference_steps=2", "--trainer.accelerator=cpu", "--model.dtype=float32"]
    run = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["predict", "-c", "build_videos", *options, *run]) == 0
    assert (verify(tmp_path / "clips").samples, verify(tmp_path / "clips").problems) == (1, ())
    [(record, members)] = iterate_samples(tmp_path / "clips")
    [(_, before)] = iterate_samples(tmp_path / "drafts")
    assert members["source.mp4"] == before["source.mp4"]  # passed on as it was, not encoded again
    lineage = json.loads(record["lineage"]) if isinstance(record["lineage"], str) else record["lineage"]
    assert list(lineage) == ["RawVideos", "_Negative", "BuildVideos"]
    made = lineage["BuildVideos"]
    assert made["stride"] == 1 and made["settings"]["propagation"]["strength"] == 0.55
    base, short = str(stable_video_folder), Propagation(num_inference_steps=2)
    same = BuildVideos(tmp_path, base, short, frames=3, size=(32, 48), dtype="float32", low_memory=True)
    assert made["settings"] == same.settings  # the same from Python, and memory makes no difference


def test_the_network_is_no_part_of_the_module(builder: BuildVideos) -> None:
    assert list(builder.parameters()) == [] and not builder.state_dict()


class Hills:
    """Three sources with an edited first frame."""

    keys = pa.chunked_array([[f"hill{n}" for n in range(3)]])
    reading = {"data": "Hills"}  # noqa: RUF012

    def __getitem__(self, index: int) -> Input:
        source = clip(3 + index)
        return Input(draft(f"hill{index}", source, 255 - source.frames[0]))


@pytest.mark.proof
def test_ranks_share_the_weights_of_stable_video_diffusion(
    on_ranks: Callable[..., list[Any]], stable_video_folder: Path, tmp_path: Path
) -> None:
    def build(output: Path, **options: Any) -> int:
        step = BuildVideos(output, str(stable_video_folder), QUICK, 3, (32, 48), dtype="float32", shard_size=1)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(accelerator="cpu", default_root_dir=output, **quiet, **options)
        trainer.predict(step, step.feed(Hills(), batch_size=1), return_predictions=False)
        assert step._propagator is not None
        weights = [*step._propagator.model.pipeline.unet.parameters()]
        assert step.sharing is None or any(isinstance(weight, DTensor) for weight in weights)
        return step.tally.inputs

    build(tmp_path / "one", devices=1)
    strategy = FullySharded(process_group_backend="gloo")
    assert sum(on_ranks(lambda rank: build(tmp_path / "two", devices=2, strategy=strategy), seconds=120)) == 3
    files = sorted(path.name for path in (tmp_path / "one").glob("shard-*"))
    assert len(files) == 6
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
