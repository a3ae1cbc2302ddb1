"""`insvie edit`: any video in, the same length and size out; bad input in one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip
from insvie_lightning.cli import main
from insvie_lightning.editors import editor
from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.video import read_clip, read_comment, write_clip
from insvie_lightning.weights.components import base_folder
from insvie_lightning.weights.deliverable import save_deliverable


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained editor on the shipped toy base."""
    model = InsViE(base="toy", lora_rank=2, num_inference_steps=2, sampler="ddim")
    model.configure_model()
    folder = tmp_path_factory.mktemp("run") / "weights"
    save_deliverable(model.deliverable(), folder)
    return folder


def edit(weights: Path, video: Path, output: Path, *options: str) -> int:
    sentence = "make the red circle blue"
    arguments = [f"--weights={weights}", f"--video={video}", f"--instruction={sentence}", f"--output={output}"]
    return main(["edit", *arguments, *options])


def small(path: Path, frames: int = 7) -> Path:
    write_clip(path, Clip(np.random.default_rng(0).integers(0, 255, (frames, 3, 51, 77), np.uint8), 12.5))
    return path


def test_a_real_video_keeps_its_length_size_and_rate(weights: Path, shared: Path, tmp_path: Path) -> None:
    source = shared / "real/videos/horse.mp4"
    assert edit(weights, source, tmp_path / "out.mp4") == 0
    before, after = read_clip(source), read_clip(tmp_path / "out.mp4")
    assert after.frames.shape == before.frames.shape == (49, 3, 480, 720)
    assert after.fps == before.fps


def test_a_small_odd_clip_keeps_its_length_and_size(weights: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (7, 3, 51, 77), np.uint8)
    write_clip(tmp_path / "in.mp4", Clip(frames, 12.5))
    assert edit(weights, tmp_path / "in.mp4", tmp_path / "out.mp4") == 0
    after = read_clip(tmp_path / "out.mp4")
    assert after.frames.shape == frames.shape and after.fps == 12.5


def test_the_source_is_kept_without_loading_an_editor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = small(tmp_path / "in.mp4").read_bytes()
    assert edit(tmp_path / "nowhere", tmp_path / "in.mp4", tmp_path / "in.mp4") == 2
    assert "is the video itself, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_a_table_needs_a_folder_and_loads_no_editor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(tmp_path / "in.mp4")
    (tmp_path / "edits.csv").write_text("video,instruction\nin.mp4,remove the square\n")
    table = ["edit", "--weights=nowhere", f"--csv={tmp_path / 'edits.csv'}", f"--output={tmp_path / 'in.mp4'}"]
    assert main(table) == 2
    assert "in.mp4 is a file, but many edits need a folder" in capsys.readouterr().err


def test_the_released_way(weights: Path, tmp_path: Path) -> None:
    options = ["--frame_rule=release", "--resize=cover", "--fps=7", "--size", "32", "48", "--num_inference_steps=1"]
    assert edit(weights, small(tmp_path / "in.mp4", 12), tmp_path / "out.mp4", *options) == 0
    after = read_clip(tmp_path / "out.mp4")
    assert after.frames.shape == (9, 3, 32, 48) and after.fps == 7


def test_a_recipe_says_how_and_the_command_line_has_the_last_word(weights: Path, tmp_path: Path) -> None:
    own = ["--model.edit_options.frame_rule=release", "--model.edit_options.fps=7", "--num_inference_steps=1"]
    for name, options, shape, fps in (("a", [], 9, 7), ("b", ["--frame_rule=keep", "--fps=5"], 12, 5)):
        assert edit(weights, small(tmp_path / "in.mp4", 12), tmp_path / f"{name}.mp4", *own, *options) == 0
        after = read_clip(tmp_path / f"{name}.mp4")
        assert (len(after), after.fps) == (shape, fps)


def test_weights_take_options_of_their_model(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, told, saved = small(tmp_path / "in.mp4", 1), [], []
    monkeypatch.setattr(editor, "save_memory", lambda model, device: saved.append(model))
    changes = ["--model.num_inference_steps=1", "--model.guidance.guidance_scale", "1.5", "--model.sampler=dpm"]
    for name, options in (("a", []), ("b", changes), ("c", ["--num_inference_steps=1", "--seed=5", "--low_memory"])):
        assert edit(weights, source, tmp_path / f"{name}.mp4", *options) == 0
        told.append(json.loads(read_comment(tmp_path / f"{name}.mp4")))
    assert [(one["num_inference_steps"], one["seed"]) for one in told] == [(2, 0), (1, 0), (1, 5)]
    assert [one["guidance"]["guidance_scale"] for one in told] == [4.5, 1.5, 4.5]
    assert len(saved) == 1


def test_weights_that_bring_their_base_are_edited_with_it(weights: Path, tmp_path: Path) -> None:
    own = tmp_path / "weights"
    shutil.copytree(weights, own)
    shutil.copytree(base_folder("toy"), own / "base")
    settings = json.loads((own / "editor.json").read_text())
    (own / "editor.json").write_text(json.dumps({**settings, "base": "./base"}))
    source = small(tmp_path / "in.mp4", 1)
    for folder, name in ((own, "own.mp4"), (weights, "toy.mp4")):
        assert edit(folder, source, tmp_path / name) == 0
    assert np.array_equal(read_clip(tmp_path / "own.mp4").frames, read_clip(tmp_path / "toy.mp4").frames)


def test_a_table_is_edited_and_bad_rows_are_told(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "in.mp4")
    (tmp_path / "edits.csv").write_text("video,instruction\nin.mp4,remove the square\nabsent.mp4,remove it\n")
    table = ["edit", f"--weights={weights}", f"--csv={tmp_path / 'edits.csv'}", f"--output={tmp_path / 'out'}"]
    assert main(table) == 2
    assert "1 edited, 0 done before, 1 bad" in capsys.readouterr().err
    assert len(read_clip(tmp_path / "out/in.mp4")) == 7
    (tmp_path / "absent.mp4").write_bytes((tmp_path / "in.mp4").read_bytes())
    assert main(table) == 0
    assert "1 edited, 1 done before, 0 bad" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.num_inference_step=1"], "InsViE takes no 'num_inference_step'; did you mean 'num_inference_steps'?"),
        (["--size", "30", "48"], "multiples of 16; did you mean (32, 48)?"),
        (["--fps", "0"], "fps 0.0: legal are rates above 0"),
        (["--frame_rule", "release"], "the release's frame rule needs 9 frames or more, and this video has 7"),
    ],
)
def test_an_illegal_option_is_one_sentence(
    weights: Path, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(weights, small(tmp_path / "in.mp4"), tmp_path / "out.mp4", *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and said in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "nowhere"], "nowhere is not a trained editor: editor.json is missing"),
        (["-c", "s3", "-c", "toy"], "runs/s3/weights is not a trained editor"),
        (["--weights", "nowhere", "--csv", "edits.csv"], "give what to edit either as --video FILE or as --csv TABLE"),
        ([], "give the editor either as --weights FOLDER or as a recipe"),
        (["--weights", "nowhere", "-c", "s3"], "give the editor either as --weights FOLDER or as a recipe"),
    ],
)
def test_an_editor_that_is_not_there_is_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mp4", Clip(np.zeros((5, 3, 32, 48), np.uint8), 8))
    common = ["--video", "in.mp4", "--instruction", "remove the square", "--output", "out.mp4"]
    assert main(["edit", *common, *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and said in error
    assert not Path("out.mp4").exists()
