"""The real-video route as one chain in the toy world, where every true edit is known.

Two things are measured: how often the first frame that the judge picks is nearer to the true one than another
candidate, and the mean quality of the clips before the filter and after it.
"""

import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer

from insvie_data_modules.drafts import Drafts
from insvie_data_modules.raw_videos import RawVideos
from insvie_data_modules.sample_sets import SampleSet, SampleSets
from insvie_lightning.batch import Clip
from insvie_lightning.builders import BuildCaptions, BuildEdits, BuildFirstFrames, BuildSets, FilterTriplets
from insvie_lightning.cli import main
from insvie_lightning.commands import build
from insvie_lightning.editors.frames import VideoEditor
from insvie_lightning.judges import VLMJudge
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, iterate_samples
from insvie_lightning.shards.verify import verify
from insvie_lightning.toy.edits import example, example_of_key, indices
from insvie_lightning.toy.judge import ToyJudge
from insvie_lightning.toy.scene import Scene, caption, render
from insvie_lightning.toy.writer import ToyWriter
from insvie_lightning.video import write_clip

SCENES = 140
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def write_scenes(folder: Path, count: int) -> Path:
    """Test scenes in which things move as videos, and the table of their captions."""
    table = folder / "scenes.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption"])
        for index in indices("test", count, ("recolour", "remove", "background"), ("real",)):
            sample = example("test", index)
            write_clip(folder / f"{sample.key}.mp4", Clip(render(sample.source), 8.0), lossless=True)
            rows.writerow([f"{sample.key}.mp4", caption(sample.source)])
    return table


def source_of(key: str) -> Scene:
    """The scene that a draft `toy-test-0000012-0` is of."""
    return example_of_key(key.rpartition("-")[0]).source


def true_edit(scene: Scene, instruction: str) -> Scene:
    """What an instruction of the toy writer makes of a scene."""
    said, _, last = instruction.rpartition(" ")
    if said == "change the background to":
        return replace(scene, background=last)
    assert said.startswith("make the ")
    target = said.removeprefix("make the ")
    assert sum(shape.name == target for shape in scene.shapes) == 1
    shapes = tuple(replace(shape, colour=last) if shape.name == target else shape for shape in scene.shapes)
    return replace(scene, shapes=shapes)


def psnr_db(made: np.ndarray, truth: np.ndarray) -> float:
    error = (made.astype(np.float64) - truth) / 255
    return float(-10 * np.log10(max(np.square(error).mean(), 1e-6)))  # at most 60


@dataclass(frozen=True)
class Figures:
    """What the chain is worth.

    Attributes:
        chosen: Mean PSNR in dB of the picked first frames against the true ones.
        others: The same of the candidates that were not picked.
        wins: For each first frame, the share of the other candidates that the picked one is better than.
        before: PSNR in dB of each clip before the filter.
        after: The same of those that it keeps.
    """

    chosen: float
    others: float
    wins: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"first frames: n = {len(self.wins)}, picked {self.chosen:.2f} dB, others {self.others:.2f} dB, "
            f"better than another one in {mean(self.wins):.1%}; "
            f"clips: n = {len(self.before)}, {mean(self.before):.2f} dB before the filter, "
            f"{mean(self.after):.2f} dB after it, {len(self.after)} kept"
        )


Seen = dict[int, np.ndarray]
"""Candidates by the seed that they were made from."""


def watch(monkeypatch: pytest.MonkeyPatch, kind: Any) -> Seen:
    """Keep all candidates that editors of a class make."""
    seen: Seen = {}
    edit = kind.edit

    @wraps(edit)  # a recipe may name only what has the signature of an editor
    def watched(self: Any, frame: np.ndarray, instruction: str, scales: tuple[float, ...], seed: int) -> np.ndarray:
        seen[seed] = edit(self, frame, instruction, scales, seed)
        return seen[seed]

    monkeypatch.setattr(kind, "edit", watched)
    return seen


def measure(folder: Path, seen: Seen) -> Figures:
    """Compare every accepted first frame, the candidates beside it, and the clips with the truth."""
    chosen, others, wins = [], [], []
    frames = Drafts(folder / "first_frames").inputs()
    for number in range(len(frames.keys)):
        draft = frames[number].sample
        last = draft.lineage["BuildFirstFrames"]["attempts"][-1]
        candidates = seen[last["seed"]]
        assert len(candidates) == 6 and np.array_equal(candidates[last["answer"]], draft.edited_frame)
        truth = render(true_edit(source_of(draft.key), draft.instruction))[0]
        quality = [psnr_db(candidate, truth) for candidate in candidates]
        picked = quality.pop(last["answer"])
        chosen.append(picked)
        others.extend(quality)
        wins.append(mean((picked > other) + 0.5 * (picked == other) for other in quality))
    before, after = (clips_db(folder / name) for name in ("clips", "train"))
    return Figures(mean(chosen), mean(others), tuple(wins), before, after)


def clips_db(folder: Path) -> tuple[float, ...]:
    """PSNR in dB of every accepted clip against the true one."""
    found = []
    for record, members in iterate_samples(folder):
        triplet = decode_triplet(record, members["source.mp4"], members["edited.mp4"])
        truth = render(true_edit(source_of(triplet.key), triplet.instruction))
        found.append(psnr_db(triplet.edited.frames, truth))
    return tuple(found)


class Clumsy:
    """Knows the true edit, and spoils it the more the further the guidance scale is from 3; now and then wholly."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        self.identity = {"model": "clumsy"}

    def load(self, device: torch.device) -> None:
        pass

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: Sequence[float], seed: int) -> np.ndarray:
        return np.stack([self._spoil(frame[None], instruction, scale, seed, 1)[0] for scale in guidance_scales])

    def edit_clip(self, clip: Clip, instruction: str, guidance_scale: float, seed: int) -> np.ndarray:
        return self._spoil(clip.frames, instruction, guidance_scale, seed, 3)

    def _spoil(self, frames: np.ndarray, instruction: str, scale: float, seed: int, odds: int) -> np.ndarray:
        scene = max(self.scenes, key=lambda scene: psnr_db(frames, render(scene)[: len(frames)]))
        truth = render(true_edit(scene, instruction))[: len(frames)]
        share = min(1.0, 0.15 * abs(scale - 3) + (0.8 if odds > 1 and seed % odds == 0 else 0))
        noise = np.random.default_rng(seed).integers(0, 256, frames.shape)
        return np.rint((1 - share) * truth + share * noise).astype(np.uint8)


def test_the_route_picks_good_frames_and_keeps_good_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that knows the truth and spoils it in a known way; step by step, from Python."""
    seen = watch(monkeypatch, Clumsy)
    table = write_scenes(tmp_path / "scenes", 9)
    with table.open() as file:
        scenes = [example_of_key(Path(row["video"]).stem).source for row in csv.DictReader(file)]
    editor, judge = Clumsy(scenes), VLMJudge(ToyJudge())
    writer = VLMJudge(ToyWriter())
    kinds = {"recolour": 2, "background": 1}
    videos = RawVideos(table, frames=9, fps=None, size=None, still=True)
    run = _runner(tmp_path)
    run(BuildCaptions(tmp_path / "captions", writer, instructions_per_video=1, edit_types=kinds), videos)
    frames = BuildFirstFrames(tmp_path / "first_frames", editor, judge, SCALES, size=None)
    run(frames, Drafts(tmp_path / "captions"))
    run(BuildEdits(tmp_path / "clips", editor, lossless=True), Drafts(tmp_path / "first_frames"))
    run(FilterTriplets(tmp_path / "train", judge, min_judge=4), Drafts(tmp_path / "clips"))
    run(BuildSets(tmp_path / "sets"), SampleSets(tmp_path / "train", {"s1": SampleSet()}))
    found = measure(tmp_path, seen)
    assert len(found.wins) >= 8 and mean(found.wins) > 0.8 and found.chosen > found.others + 3, str(found)
    assert 0 < len(found.after) < len(found.before) and mean(found.after) > mean(found.before) + 3, str(found)
    assert not verify(tmp_path / "sets/s1").problems
    assert len(open_manifest(tmp_path / "sets/s1").query(accepted_only=False)) == len(found.after)
    lineage = json.loads(open_manifest(tmp_path / "sets/s1").query(accepted_only=False)["lineage"][0].as_py())
    assert list(lineage) == ["RawVideos", "BuildCaptions", "BuildFirstFrames", "BuildEdits", "filter"]
    assert lineage["BuildEdits"]["seed"] == lineage["BuildFirstFrames"]["attempts"][-1]["seed"]


def _runner(folder: Path) -> Callable[[Any, Any], None]:
    def run(step: Any, data: Any) -> None:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=folder / "run", **quiet)
        trainer.predict(step, data, return_predictions=False)

    return run


@pytest.fixture(scope="module")
def toy_editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a toy editor that has learnt for a while; those of `INSVIE_TOY_EDITOR` where it is set."""
    if named := os.environ.get("INSVIE_TOY_EDITOR"):
        return Path(named)
    folder = tmp_path_factory.mktemp("toy_editor")
    root = [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
    assert main(["predict", "-c", "build_toy", f"--model.output={folder / 'data'}", *root]) == 0
    latents = [f"--model.output={folder / 'latents'}", "--model.base=toy", "--model.frames=9", "--model.size=[64, 96]"]
    latents += ["--model.posterior=mean"]  # the toy autoencoder's has no variance
    read = [f"--data.shards={folder / 'data'}", "--data.batch_size=64", "--data.num_workers=0"]
    cpu = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
    assert main(["predict", "-c", "build_latents", *latents, *read, *cpu, *root]) == 0
    stage = "{name: s1, steps: 400, where: \"judge >= 4 and edit_type in ('recolour', 'background')\"}"
    data = [f"--data.shards={folder / 'latents'}", f"--data.stages=[{stage}]", "--data.batch_size=8"]
    log = [f"--trainer.logger.init_args.save_dir={folder}", "--trainer.max_steps=400"]
    assert main(["fit", "-c", "s1", "-c", "toy", *data, *root, *log]) == 0
    return folder / "weights"


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_the_route_with_a_trained_editor_by_one_command(
    toy_editor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = watch(monkeypatch, VideoEditor)
    given = [f"--captions.data.videos={write_scenes(tmp_path / 'scenes', SCENES)}"]
    given += ["--first_frames.model.max_attempts=1"]
    for step in ("first_frames", "edits"):
        given += [f"--{step}.model.editor.weights={toy_editor}", f"--{step}.model.editor.num_inference_steps=3"]
    start = time.process_time()
    assert build.main(["real", "-c", "build_insvie_toy", *given], main) == 0
    found = measure(tmp_path / "data/toy", seen)
    print(f"\n{SCENES} scenes in {time.process_time() - start:.0f} s of processor time\n{found}")
    assert len(found.wins) >= 100 and mean(found.wins) > 0.5 and found.chosen > found.others
    assert len(found.after) < len(found.before) and mean(found.after) > mean(found.before)
