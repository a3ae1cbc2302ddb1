"""Tests and tables through the command line: TGVE, edits of other tools, and which metrics a recipe takes."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from insvie_callbacks.edit_metric import EditMetric
from insvie_data_modules import Tgve
from insvie_lightning.batch import Clip
from insvie_lightning.cli import main
from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.editors import GivenEdits
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.video import read_clip, write_clip

CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
PIXELS = "--metrics=[Pixels]"


def run_folder(folder: Path) -> list[str]:
    return [f"--trainer.default_root_dir={folder}", f"--trainer.logger.init_args.save_dir={folder}"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def callbacks(*arguments: str) -> list[EditMetric]:
    """What scores the edits of a recipe."""
    trainer = InsvieCLI([*arguments, "--trainer.accelerator=cpu", "--trainer.devices=1"], run=False).trainer
    return [callback for callback in trainer.callbacks if isinstance(callback, EditMetric)]  # type: ignore[attr-defined]


def metrics(*arguments: str) -> list[str]:
    """Their names."""
    return [type(callback).__name__ for callback in callbacks(*arguments)]


@pytest.mark.parametrize("recipe", ["tgve", "tgve_plus"])
def test_scores_of_tgves_script_see_squares_as_it_does(recipe: str) -> None:
    squared = {type(each).__name__ for each in callbacks("-c", recipe) if getattr(each.metric, "tgve_square", False)}
    assert squared == {"ClipFrame", "ClipText", "PickScore"}


def test_the_metrics_of_a_recipe_are_replaced_by_an_overlay_and_added_to_on_the_command_line() -> None:
    published = ["ClipFrame", "ClipText", "PickScore", "ViClip", "ClipTemporal", "EPE", "Dover"]
    free = ["EPE", "Pixels", "ClipFrame", "ClipText"]
    assert metrics("-c", "tgve") == published
    assert metrics("-c", "tgve", "-c", "toy") == metrics("-c", "score", "-c", "metrics_free") == free
    assert metrics("-c", "tgve", "--metrics+=Pixels") == [*published, "Pixels"]
    assert metrics("-c", "s1") == []
    assert metrics("-c", "s1", "-c", "metrics_training") == ["ClipTemporal", "PickScore", "EPE", "Dover"]


def test_absent_weights_are_one_sentence_before_the_work_begins(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("insvie_lightning.nets.hub.HfApi", lambda: 1 / 0)
    folder = f"--data.folder={shared / 'real/tgve'}"
    assert main(["test", "-c", "tgve", folder, "--model.base=toy", *CPU, *run_folder(tmp_path)]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("error: the weights 'openai/clip-vit-large-patch14'") and "hf download" in said


def test_tgve_gets_its_tables_and_its_page(shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two real videos are edited at their own size, by few frames and steps."""
    small = ["--data.edits=[style]", "--data.batch_size=1", "--data.max_frames=4", "--trainer.limit_test_batches=2"]
    model = ["--model.num_inference_steps=1", "--model.trainable=lora", "--model.lora_rank=2"]
    recipe = ["test", "-c", "tgve", "-c", "toy", f"--data.folder={shared / 'real/tgve'}", PIXELS]
    assert main([*recipe, *small, *model, *CPU, *run_folder(tmp_path)]) == 0
    edits = rows(tmp_path / "scores.csv")
    sentences = json.loads((shared / "real/tgve/instructions.json").read_text())
    known = {f"{name}_style": texts["edit_style"].strip() for name, texts in sentences.items()}
    assert len(edits) == 2 and {edit["key"]: edit["instruction"] for edit in edits}.items() <= known.items()
    assert {(edit["frames"], edit["height"], edit["width"]) for edit in edits} == {("4", "480", "480")}
    assert all(0 < float(edit["psnr_source_db"]) < 60 for edit in edits)
    tasks = {task["edit_type"]: task for task in rows(tmp_path / "tasks.csv")}
    assert list(tasks) == ["style", "all"] and tasks["style"]["edits"] == tasks["all"]["edits"] == "2"
    mean = np.mean([float(edit["psnr_source_db"]) for edit in edits])
    assert float(tasks["all"]["psnr_source_db"]) == pytest.approx(mean)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["psnr_source_db"] == pytest.approx(mean, rel=1e-5)
    shown = capfd.readouterr().out
    assert "InsViE" in shown and "published means are of all 304 edits" in shown
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "InsViE Table 6" in page and edits[0]["instruction"] in page and page.count("data:video/mp4") == 4


def test_edits_while_training_are_scored_more_than_once() -> None:
    cli = InsvieCLI(["-c", "s1", "-c", "metrics_training", "--trainer.accelerator=cpu"], run=False)
    (steps,) = (stage.steps for stage in cli.datamodule.stages)
    assert cli.trainer.max_epochs == 1 and steps >= 10 * cli.trainer.val_check_interval
    assert cli.trainer.check_val_every_n_epoch is None  # or a stage of fewer batches would be refused


@pytest.mark.proof
def test_tgve_in_the_toy_world_takes_minutes(shared: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    recipe = ["test", "-c", "tgve", "-c", "toy", f"--data.folder={shared / 'real/tgve'}"]
    assert main([*recipe, *CPU, *run_folder(tmp_path)]) == 0
    assert main(["report", str(tmp_path)]) == 0
    seconds = time.monotonic() - start
    edits = rows(tmp_path / "scores.csv")
    print(f"{len(edits)} edits in {seconds:.0f} s")
    assert len(edits) == 40 and {edit["frames"] for edit in edits} == {"32"}
    assert all(edit[name] for edit in edits for name in ("epe_dis_px", "ssim_source", "clip_text", "clip_frame"))


# ---------------------------------------------------------------- edits of any other tool


def picture(shift: int = 0, frames: int = 8, size: tuple[int, int] = (32, 48)) -> Clip:
    rows, columns = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([(4 * rows + 3 * columns + 5 * n + shift) % 256 for n in range(frames)]).astype(np.uint8)
    return Clip(pixels[:, None].repeat(3, 1), 8.0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three videos of two sizes; one edit is a copy, one is shorter and larger, one is missing."""
    for name, size in (("a", (32, 48)), ("b", (48, 32)), ("c", (32, 48))):
        write_clip(tmp_path / f"{name}.mp4", picture(size=size), lossless=True)
    write_clip(tmp_path / "edited/a.mp4", read_clip(tmp_path / "a.mp4"), lossless=True)
    write_clip(tmp_path / "edited/mine/b2.mp4", picture(9, 5, (96, 64)), lossless=True)
    lines = ["clip,instruction,edited,task", "a.mp4,nothing,,copy", "b.mp4,shift it,mine/b2.mp4,shift", "c.mp4,x,,copy"]
    (tmp_path / "edits.csv").write_text("\n".join(lines))
    return tmp_path / "edits.csv"


def test_edits_of_another_tool_are_scored(table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    recipe = ["test", "-c", "score", f"--data.videos={table}", f"--model.folder={tmp_path / 'edited'}", PIXELS]
    columns = ["--data.columns.video=clip", "--data.num_workers=0"]
    assert main([*recipe, *columns, *CPU, *run_folder(run)]) == 0
    edits = rows(run / "scores.csv")
    assert [(edit["key"], edit["edit_type"]) for edit in edits] == [("a", "copy"), ("mine/b2", "shift"), ("c", "copy")]
    assert [(edit["frames"], edit["height"], edit["width"]) for edit in edits] == [
        ("8", "32", "48"), ("5", "48", "32"), ("", "", ""),
    ]  # fmt: skip
    copied, shifted, missing = (edit["psnr_source_db"] for edit in edits)
    assert float(copied) > 60 > 40 > float(shifted) and not missing
    copies = rows(run / "tasks.csv")[0]
    assert (copies["edit_type"], copies["edits"], copies["missing"]) == ("copy", "2", "1")
    assert list(read_quarantine(run / "quarantine-rank0.jsonl")) == ["c"]
    assert "1 of 3 edits are missing and left out" in capfd.readouterr().out
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text().count("data:video/mp4") == 4


def test_edits_of_another_tool_stand_under_the_published_rows() -> None:
    recipe = ["-c", "tgve", "--model", "GivenEdits", "--model.folder=edited", "--trainer.accelerator=cpu"]
    cli = InsvieCLI(recipe, run=False)
    assert isinstance(cli.model, GivenEdits) and isinstance(cli.datamodule, Tgve)


def test_a_verb_that_a_recipe_does_not_know_is_one_sentence(table: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = ["-c", "score", f"--data.videos={table}", f"--model.folder={table.parent}", PIXELS]
    quiet = [*CPU, "--trainer.logger=false", f"--trainer.default_root_dir={table.parent}"]
    assert main(["validate", *recipe, *quiet]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: validate: No `validation_step()` method defined")


def test_a_metric_that_needs_a_caption_says_so(table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = ["test", "-c", "score", f"--data.videos={table}", f"--model.folder={tmp_path / 'edited'}"]
    text = ["--metrics=[{class_path: ClipText, init_args: {model: toy}}]", "--data.columns.video=clip"]
    assert main([*recipe, *text, "--data.num_workers=0", *CPU, *run_folder(tmp_path / "run")]) == 2
    assert "sample 'a' has no caption of the edited clip" in capfd.readouterr().err.splitlines()[-1]
