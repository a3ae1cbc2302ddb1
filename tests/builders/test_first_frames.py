"""The step by itself: an editor whose candidates can be told apart, real pipelines, judges of all kinds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch.distributed.tensor import DTensor

from insvie_data_modules import Drafts, RawVideos
from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders import BuildCaptions, BuildFirstFrames, CosXLEdit, InstructPix2Pix
from insvie_lightning.builders.first_frames import working_size
from insvie_lightning.builders.units import Input
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.judges import Question, VLMJudge
from insvie_lightning.judges.local import LocalModel
from insvie_lightning.judges.reply import Reply, Unavailable
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify
from insvie_lightning.video import read_clip, write_clip

TINY_VLM = Path(__file__).parents[1] / "judges" / "tiny_vlm"
SCALES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


class Painter:
    """Paints the frame by scale and instruction, so that a candidate tells which it is; notes what it is asked."""

    identity = {"editor": "Painter", "model": "none"}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], str, int]] = []

    def load(self, device: torch.device) -> None:
        self.device = device

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: tuple[float, ...], seed: int) -> np.ndarray:
        self.asked.append((frame.shape, instruction, seed))
        return np.stack([np.full_like(frame, shade(scale, instruction)) for scale in guidance_scales])


def shade(scale: float, instruction: str) -> int:
    return round(10 * scale) + ord(instruction[0]) - ord("a")


class Scripted:
    """Says to each instruction what it is told to, one reply after another; a lone reply is said again and again."""

    identity = {"model": "scripted", "temperature": 0.0}  # noqa: RUF012

    def __init__(self, **replies: Any) -> None:
        self.replies = {name: list(said) if isinstance(said, tuple) else [said] for name, said in replies.items()}
        self.questions: list[Question] = []
        self.checked = False

    def check(self) -> None:
        self.checked = True

    def reply(self, question: Any, earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        self.questions.append(question)
        said = self.replies[getattr(question, "instruction", "think_up" if "Think up" in str(question) else "")]
        reply = said.pop(0) if len(said) > 1 else said[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(json.dumps(reply) if isinstance(reply, dict) else reply)


def best(number: int) -> dict[str, int]:
    return {"best_image": number}


def draft(instruction: str, frames: int = 3, size: tuple[int, int] = (36, 64)) -> Draft:
    pixels = np.random.default_rng(len(instruction)).integers(0, 256, (frames, 3, *size), np.uint8)
    return Draft(instruction, Clip(pixels, 7.0), instruction=instruction, scores={"old": 1.0}, lineage={"Earlier": {}})


def builder(model: Any, editor: Any = None, **settings: Any) -> BuildFirstFrames:
    judge = VLMJudge(model, reasks=1, concurrency=2)
    return BuildFirstFrames(Path("nowhere"), editor or Painter(), judge, **{"size": (32, 64)} | settings)


@pytest.mark.parametrize("number", range(6))
def test_the_candidate_that_the_judge_picks_becomes_the_edited_frame(number):
    asked = draft("a")
    (made,) = builder(Scripted(a=best(number))).make([asked])
    assert isinstance(made, Draft)
    assert made.edited_frame.shape == (3, 36, 64) and made.edited_frame.dtype == np.uint8
    assert (made.edited_frame == round(10 * SCALES[number])).all()
    assert made.scores == {"old": 1.0, "edit_guidance_scale": SCALES[number]}
    assert replace(made, edited_frame=None, scores=asked.scores, lineage=asked.lineage) == asked


def test_the_judge_sees_the_frame_at_the_working_size_the_candidates_and_the_instruction():
    model, editor = Scripted(a=best(0)), Painter()
    asked = replace(draft("a", size=(72, 128)), edited_caption="a painting")
    builder(model, editor).make([asked])
    (question,) = model.questions
    assert editor.asked[0][0] == (3, 32, 64)
    assert question.source.shape == (1, 3, 32, 64) and question.edited.shape == (6, 3, 32, 64)
    assert question.edited[:, 0, 0, 0].tolist() == [30, 40, 50, 60, 70, 80]
    assert (question.prompt.name, question.instruction, question.caption) == ("screening", "a", "a painting")
    image = Image.fromarray(asked.source.frames[0].transpose(1, 2, 0)).resize((64, 32), Image.Resampling.BICUBIC)
    assert (question.source[0] == np.asarray(image).transpose(2, 0, 1)).all()


def test_all_rejected_is_tried_again_from_other_noise_and_then_given_up():
    model, editor = Scripted(a=(best(-1), best(-1), best(2)), b=best(-1), c=best(1)), Painter()
    made = builder(model, editor, max_attempts=3).make([draft("a"), draft("b"), draft("c")])
    assert [type(one) for one in made] == [Draft, Rejected, Draft]
    assert made[0].scores["edit_guidance_scale"] == 5.0 and (made[0].edited_frame == shade(5, "a")).all()
    assert made[2].scores["edit_guidance_scale"] == 4.0 and (made[2].edited_frame == shade(4, "c")).all()
    assert made[1].reason == "the judge rejected all edits of the first frame in 3 attempts"
    assert [instruction for _, instruction, _ in editor.asked] == ["a", "b", "c", "a", "b", "a", "b"]
    assert len({seed for _, _, seed in editor.asked}) == 7
    tried = made[1].sample.lineage["BuildFirstFrames"]["attempts"]
    assert [one["answer"] for one in tried] == [-1, -1, -1] and len({one["seed"] for one in tried}) == 3
    (gave_up,) = builder(Scripted(a=(best(-1), best(0))), max_attempts=1).make([draft("a")])
    assert isinstance(gave_up, Rejected)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I like the fourth.", "has no 'best_image'"),
        ("{'best_image': 9}", "no whole number of -1 to 5"),
        ("", "has no 'best_image'"),
        ('{"best_image": null}', "no whole number"),
        ('{"best_image": 1} or {"best_image": 2}', "several values"),
        (Reply("", fault="the server refused the question (HTTP 500): oops"), "HTTP 500"),
    ],
)
def test_without_a_verdict_a_draft_is_rejected_with_the_reason_and_never_accepted(reply, reason):
    editor = Painter()
    made = builder(Scripted(a=reply, b=best(1)), editor).make([draft("a"), draft("b")])
    assert isinstance(made[0], Rejected) and made[0].sample.key == "a" and made[0].sample.edited_frame is None
    missing = "HTTP 500" if isinstance(reply, Reply) else "its replies could not be read"
    assert made[0].reason.startswith("the judge gave no verdict on the first frame: ") and missing in made[0].reason
    (trial,) = made[0].sample.lineage["BuildFirstFrames"]["attempts"]
    assert trial["answer"] is None and reason in trial["reason"]
    assert isinstance(made[1], Draft) and made[1].scores["edit_guidance_scale"] == 4.0
    assert len(editor.asked) == 2


def test_a_reply_that_is_mended_counts():
    (made,) = builder(Scripted(a=("Hm.", best(3)))).make([draft("a")])
    assert made.scores["edit_guidance_scale"] == 6.0
    assert made.lineage["BuildFirstFrames"]["attempts"][0]["replies"] == ["Hm.", '{"best_image": 3}']


def test_a_server_that_is_gone_stops_the_job():
    with pytest.raises(Unavailable, match="gone"):
        builder(Scripted(a=Unavailable("gone"))).make([draft("a")])


def test_a_draft_without_instruction_is_rejected_before_any_work():
    editor = Painter()
    made = builder(Scripted(b=best(0)), editor).make([draft(""), draft("b")])
    assert isinstance(made[0], Rejected) and "no instruction" in made[0].reason
    assert len(editor.asked) == 1


def test_lineage_and_settings_say_everything_that_made_it():
    """What is the same for all samples is in the settings, which the builder writes into every lineage."""
    step = builder(Scripted(a=(best(-1), best(5))), seed=7)
    (made,) = step.make([draft("a")])
    told = json.loads(json.dumps(made.lineage))
    seeds = [trial["seed"] for trial in told["BuildFirstFrames"]["attempts"]]
    attempts = [
        {"seed": seeds[0], "answer": -1, "reason": "", "replies": ['{"best_image": -1}']},
        {"seed": seeds[1], "answer": 5, "reason": "", "replies": ['{"best_image": 5}']},
    ]
    assert told == {"Earlier": {}, "BuildFirstFrames": {"size": [32, 64], "attempts": attempts}}
    assert step.settings == {
        "editor": Painter.identity,
        "judge": {"model": "scripted", "temperature": 0.0, "prompt": "screening", "version": "2"},
        "guidance_scales": list(SCALES),
        "size": [32, 64],
        "max_attempts": 3,
        "seed": 7,
    }


def test_a_draft_is_made_alike_whoever_is_made_beside_it():
    replies: dict[str, Any] = {"a": best(-1), "b": (best(-1), best(1)), "c": best(0)}
    together = builder(Scripted(**replies)).make([draft("a"), draft("b"), draft("c")])
    alone = [builder(Scripted(**replies)).make([draft(name)])[0] for name in "abc"]
    assert [_plain(one) for one in together] == [_plain(one) for one in alone]
    other = builder(Scripted(c=best(0)), seed=1).make([draft("c")])[0]
    assert _plain(other) != _plain(alone[2])


def _plain(made: Any) -> str:
    sample, reason = (made.sample, made.reason) if isinstance(made, Rejected) else (made, "")
    return json.dumps([sample.key, reason, sample.lineage, dict(sample.scores)], sort_keys=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((1080, 1920), (576, 1024)),
        ((1920, 1080), (1024, 576)),
        ((480, 720), (640, 928)),
        ((512, 512), (768, 768)),
        ((480, 640), (672, 896)),
        ((10, 4000), (32, 15360)),
    ],
)
def test_frames_keep_their_aspect_and_the_number_of_pixels(source, expected):
    assert working_size(source, (576, 1024)) == expected


def test_without_a_size_frames_are_edited_as_they_are():
    editor = Painter()
    builder(Scripted(a=best(0)), editor, size=None).make([draft("a", size=(36, 50))])
    assert editor.asked[0][0] == (3, 36, 50)


@pytest.mark.parametrize(
    "settings", [{"guidance_scales": ()}, {"guidance_scales": (1.0,)}, {"guidance_scales": (0.5, 3)}]
)
def test_scales_that_would_not_guide_are_refused(settings):
    with pytest.raises(InputError, match="guidance_scales are"):
        builder(Scripted(), **settings)
    assert builder(Scripted(), guidance_scales=(1.0, 10.0)).guidance_scales == (1.0, 10.0)


@pytest.mark.parametrize(
    ("settings", "what"), [({"size": (16, 64)}, "at least 32"), ({"max_attempts": 0}, "at least once")]
)
def test_other_illegal_settings_are_refused(settings, what):
    with pytest.raises(InputError, match=what):
        builder(Scripted(), **settings)


def test_a_job_says_at_its_start_what_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = Scripted()
    builder(model).configure_model()
    assert model.checked
    with pytest.raises(InputError, match="neither a folder here nor to be had from the hub"):
        builder(model, CosXLEdit("nobody/nothing")).configure_model()


@pytest.mark.parametrize("kind", ["cosxl", "pix2pix"])
def test_real_pipelines_end_to_end(kind, tiny_cosxl, tiny_pix2pix):
    """Six different candidates of one batch, one of which comes back at the source's size; twice the same bytes."""
    editors: dict[str, Callable[[], Any]] = {
        "cosxl": lambda: CosXLEdit(str(tiny_cosxl), num_inference_steps=2),
        "pix2pix": lambda: InstructPix2Pix(str(tiny_pix2pix), num_inference_steps=2),
    }
    model = Scripted(a=best(4))
    step = builder(model, editors[kind](), size=(32, 64))
    step.configure_model()
    (made,) = step.make([draft("a", frames=1, size=(54, 96))])
    candidates = model.questions[0].edited
    assert candidates.shape == (6, 3, 32, 64)
    assert len({one.tobytes() for one in candidates}) == 6
    assert made.edited_frame.shape == (3, 54, 96) and made.scores["edit_guidance_scale"] == 7.0
    wanted = Image.fromarray(candidates[4].transpose(1, 2, 0)).resize((96, 54), Image.Resampling.BICUBIC)
    assert (made.edited_frame == np.asarray(wanted).transpose(2, 0, 1)).all()
    (again,) = builder(Scripted(a=best(4)), editors[kind](), size=(32, 64)).make([draft("a", frames=1, size=(54, 96))])
    assert (again.edited_frame == made.edited_frame).all() and again.lineage == made.lineage


def test_real_pictures_and_videos_and_a_real_model(shared, tiny_cosxl):
    """The tiny model knows nothing of `best_image`, so a verdict is missing; a scripted one picks."""
    from insvie_lightning.judges.local import LocalModel

    picture = np.asarray(Image.open(shared / "real" / "images" / "street.jpg").convert("RGB")).transpose(2, 0, 1)
    sources = [Clip(picture[None], 1.0), read_clip(shared / "real" / "videos" / "wolf.mp4", max_frames=3)]
    drafts = [Draft(f"real-{i}", source, instruction="make it night") for i, source in enumerate(sources)]
    editor = CosXLEdit(str(tiny_cosxl), num_inference_steps=1)
    made = builder(Scripted(**{"make it night": best(1)}), editor, size=(64, 96)).make(drafts)
    assert [one.edited_frame.shape[1:] for one in made] == [source.size for source in sources]
    (missing,) = builder(LocalModel(str(TINY_VLM), "cpu", 16), editor, size=(64, 96), max_attempts=1).make(drafts[:1])
    assert isinstance(missing, Rejected) and "no verdict" in missing.reason
    assert "has no 'best_image'" in missing.sample.lineage["BuildFirstFrames"]["attempts"][0]["reason"]


@pytest.mark.parametrize("workers", [0, 2])
def test_videos_become_shards_of_drafts_with_edited_first_frames(tmp_path, workers):
    """The chain on disk: captions, then first frames; what is made is a query over the manifest."""
    for name, colour in (("a", 60), ("b", 120)):
        frames = np.full((9, 3, 64, 96), colour, np.uint8)
        frames[np.arange(9), :, 8, np.arange(9) * 8] = 255
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(frames, 8.0))
    videos = RawVideos(tmp_path / "videos", frames=3, fps=4.0, size=None, still=True, num_workers=workers)
    edit = json.dumps({"instruction": "turn it over", "edited_caption": "a page turned over"})
    writer = VLMJudge(Scripted(**{"": json.dumps({"caption": "a page"})}, think_up=edit))
    captions = BuildCaptions(tmp_path / "captions", writer, instructions_per_video=1, edit_types={"style": 1})
    run(captions, videos, tmp_path)
    model = Scripted(**{"turn it over": (best(2), best(-1))})
    judge = VLMJudge(model, concurrency=1)
    step = BuildFirstFrames(tmp_path / "first", Painter(), judge, size=(32, 64), max_attempts=2)
    run(step, Drafts(tmp_path / "captions", num_workers=workers), tmp_path)
    assert not verify(tmp_path / "first").problems
    columns = ["key", "accepted", "reason", "edit_guidance_scale", "instruction", "source_caption", "lineage"]
    kept, rejected = open_manifest(tmp_path / "first").query(columns=columns, accepted_only=False).to_pylist()
    assert (kept["key"], kept["accepted"], kept["edit_guidance_scale"]) == ("a-0", True, 5.0)
    assert (kept["instruction"], kept["source_caption"]) == ("turn it over", "a page")
    assert (rejected["key"], rejected["accepted"]) == ("b-0", False) and "rejected all edits" in rejected["reason"]
    lineage = json.loads(kept["lineage"])
    assert list(lineage) == ["RawVideos", "BuildCaptions", "BuildFirstFrames"]
    assert lineage["BuildFirstFrames"]["settings"] == step.settings
    assert lineage["BuildFirstFrames"]["attempts"][0]["answer"] == 2
    (read,) = (Drafts(tmp_path / "first").inputs()[0].sample,)
    assert read.edited_frame.shape == (3, 64, 96) and np.abs(read.edited_frame.astype(int) - shade(5, "t")).max() <= 1


def test_the_command_runs_the_recipe(tmp_path, tiny_cosxl):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), np.uint8)
    write_clip(tmp_path / "videos" / "a.mp4", Clip(frames, 8.0))
    edit = json.dumps({"instruction": "make it night", "edited_caption": "a red circle on night"})
    writer = VLMJudge(Scripted(**{"": json.dumps({"caption": "a page"})}, think_up=edit))
    captions = BuildCaptions(tmp_path / "captions", writer, instructions_per_video=2, edit_types={"add": 1, "style": 1})
    run(captions, RawVideos(tmp_path / "videos", frames=2, fps=None, size=None), tmp_path)
    settings = {
        "data.shards": tmp_path / "captions",
        "data.num_workers": 0,
        "model.output": tmp_path / "first",
        "model.editor.model": tiny_cosxl,
        "model.editor.num_inference_steps": 1,
        "model.judge.model": "insvie_lightning.toy.judge.ToyJudge",
        "model.judge.cache": tmp_path / "cache",
        "model.size": "[32, 64]",
        "model.guidance_scales": "[3, 8]",
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.default_root_dir": tmp_path / "run",
        "trainer.enable_progress_bar": "false",
    }
    command = ["predict", "-c", "build_first_frames", *(f"--{name}={value}" for name, value in settings.items())]
    assert main(command) == 0
    (row,) = open_manifest(tmp_path / "first").query(accepted_only=False).to_pylist()
    told = json.loads(row["lineage"])["BuildFirstFrames"]
    assert (row["key"], told["settings"]["judge"]["model"]) == ("a-0", "toy-clip")
    assert told["settings"]["editor"]["model"] == str(tiny_cosxl) and told["settings"]["guidance_scales"] == [3.0, 8.0]
    assert len(told["attempts"]) <= 3 and all(trial["replies"] for trial in told["attempts"])
    assert len(list((tmp_path / "cache").rglob("*.json"))) == len(told["attempts"])


def run(step: Any, data: Any, folder: Path) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=folder / "run", **quiet)
    trainer.predict(step, data, return_predictions=False)


class Stills:
    """Four pictures with an instruction each."""

    keys = pa.chunked_array([[f"still{n}" for n in range(4)]])
    reading = {"data": "Stills"}  # noqa: RUF012

    def __getitem__(self, index: int) -> Input:
        return Input(replace(draft("make it " + "very " * index + "red", 1), key=f"still{index}"))


@pytest.mark.proof
def test_ranks_share_the_weights_of_editor_and_judge(on_ranks, tiny_cosxl, tmp_path):
    def build(output: Path, **options: Any) -> BuildFirstFrames:
        editor = CosXLEdit(str(tiny_cosxl), num_inference_steps=1)
        judge = VLMJudge(LocalModel(str(TINY_VLM), "cpu", 16), reasks=1)
        step = BuildFirstFrames(output, editor, judge, (3.0, 8.0), (32, 64), max_attempts=2, shard_size=1)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(accelerator="cpu", default_root_dir=output, **quiet, **options)
        trainer.predict(step, step.feed(Stills(), batch_size=1), return_predictions=False)
        return step

    def work(rank: int) -> int:
        step = build(tmp_path / "two", devices=2, strategy=FullySharded(process_group_backend="gloo"))
        weights = [*step.editor._pipeline.unet.parameters(), *step.judge.model._loaded[1].parameters()]
        own = sum((w.to_local() if isinstance(w, DTensor) else w).numel() for w in weights)
        assert own < 0.7 * sum(w.numel() for w in weights)
        return step.tally.inputs

    build(tmp_path / "one", devices=1)
    assert sum(on_ranks(work, seconds=120)) == 4
    files = sorted(path.name for path in (tmp_path / "one").glob("shard-*"))
    assert len(files) == 8
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
