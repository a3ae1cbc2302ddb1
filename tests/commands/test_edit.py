"""`insvie edit`: any video in, the same length and size out; bad input in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip
from insvie_lightning.cli import main
from insvie_lightning.editors.insvie import InsViE
from insvie_lightning.video import read_clip, write_clip
from insvie_lightning.weights.deliverable import save_deliverable


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained editor on the shipped toy base."""
    editor = InsViE(base="toy", lora_rank=2, num_inference_steps=2, sampler="ddim")
    editor.configure_model()
    folder = tmp_path_factory.mktemp("run") / "weights"
    save_deliverable(editor.deliverable(), folder)
    return folder


def edit(weights: Path, video: Path, output: Path) -> int:
    sentence = "make the red circle blue"
    return main(["edit", f"--weights={weights}", f"--video={video}", f"--instruction={sentence}", f"--output={output}"])


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "nowhere"], "nowhere is not a trained editor: editor.json is missing"),
        (["-c", "s3", "-c", "toy"], "runs/s3/weights is not a trained editor"),
        ([], "give the editor either as --weights FOLDER or as a recipe"),
        (["--weights", "nowhere", "-c", "s3"], "give the editor either as --weights FOLDER or as a recipe"),
        (["--weights", "nowhere", "--model.lr", "1"], "--model.lr belongs to a recipe"),
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
