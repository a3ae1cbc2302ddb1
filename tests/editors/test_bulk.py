"""Many edits: done ones are skipped, bad ones set aside, and nothing is half written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.edit_list import list_edits
from insvie_lightning.editors.bulk import BulkResult, edit_in_bulk
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.options import EditOptions
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.video import read_clip, write_clip


class Inverting:
    """Stands in for a model: inverts colours, and notes the instructions."""

    device = torch.device("cpu")
    working_shape = (9, 32, 48)
    guidance, num_inference_steps, seed = Guidance(), 50, 0

    def __init__(self) -> None:
        self.instructions: list[str] = []

    def edit_batch(self, batch: EditBatch) -> Tensor:
        self.instructions += batch.instructions
        if "stop" in batch.instructions:
            raise KeyboardInterrupt
        assert batch.source is not None
        return -to_device_pixels(batch.source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", Clip(np.full((4, 3, 32, 48), 60, np.uint8), 8))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def run(folder: Path, rows: str, options: EditOptions = EditOptions()) -> tuple[BulkResult, list[str]]:  # noqa: B008
    (folder / "edits.csv").write_text(f"video,instruction,output\n{rows}")
    model = Inverting()
    lines: list[str] = []
    result = edit_in_bulk(Editor(model), list_edits(folder / "edits.csv"), folder / "out", options, lines.append)
    assert len(lines) == result.edited + result.bad
    return result, model.instructions


def test_bad_rows_are_set_aside_and_the_rest_is_edited(folder: Path) -> None:
    rows = "a.mp4,x,\nbroken.mp4,x,\nabsent.mp4,x,\n,x,\nb.mp4,,\nb.mp4,x,../b.mp4\nb.mp4,y,new/b.mp4\nb.mp4,z,a.mp4\n"
    result, instructions = run(folder, rows)
    assert result == BulkResult(edited=2, done_before=0, bad=6)
    assert instructions == ["x", "y"]
    assert np.abs(read_clip(folder / "out/new/b.mp4").frames.astype(int) - 195).max() <= 3
    reasons = read_quarantine(folder / "out/quarantine.jsonl")
    said = ["no readable video", "no such file", "names no video", "no instruction", "leaves the output", "that of 'a'"]
    assert all(part in reason for part, reason in zip(said, reasons.values(), strict=True))
    assert list(reasons) == ["broken", "absent", "video", "b", "b-2", "b-4"]
    made = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())
    assert made == ["a.mp4", "new/b.mp4", "quarantine.jsonl"]


def test_an_output_that_is_a_source_is_bad(folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in ("a.mp4", "b.mp4")}
    result = edit_in_bulk(
        Editor(Inverting()), list_edits(folder, "x"), folder / "." / "new" / "..", tell=lambda _: None
    )
    assert result == BulkResult(0, 0, 3)
    (folder / "edits.csv").write_text("video,instruction,output\na.mp4,x,b.mp4\nb.mp4,x,c.mp4\n")
    edits = list_edits(folder / "edits.csv")
    assert edit_in_bulk(Editor(Inverting()), edits, folder, tell=lambda _: None) == BulkResult(1, 0, 1)
    (reason,) = read_quarantine(folder / "quarantine.jsonl").values()
    assert reason == f"the output 'b.mp4' is the video {folder / 'b.mp4'}, which would be lost; name another"
    assert before == {name: (folder / name).read_bytes() for name in before}


@pytest.mark.parametrize("output", ["a.mp4", "a.mp4/new"])
def test_a_file_is_no_folder_of_outputs(folder: Path, output: str) -> None:
    with pytest.raises(InputError, match=r"a\.mp4 is a file, but many edits need a folder$"):
        edit_in_bulk(Editor(Inverting()), list_edits(folder, "x"), folder / output)


def test_one_output_by_two_names_is_bad(folder: Path) -> None:
    result, _ = run(folder, "a.mp4,x,c.mp4\nb.mp4,x,./c.mp4\n")
    assert result == BulkResult(edited=1, done_before=0, bad=1)


def test_a_rerun_does_what_is_left(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, "a.mp4,x,\nb.mp4,stop,\n")
    before = (folder / "out/a.mp4").stat().st_mtime_ns
    assert run(folder, "a.mp4,x,\nb.mp4,y,\n") == (BulkResult(edited=1, done_before=1, bad=0), ["y"])
    assert (folder / "out/a.mp4").stat().st_mtime_ns == before


def test_what_was_made_otherwise_is_made_again(folder: Path) -> None:
    run(folder, "a.mp4,x,\nb.mp4,x,\n")
    assert run(folder, "a.mp4,x,\nb.mp4,y,\n") == (BulkResult(1, 1, 0), ["y"])
    assert run(folder, "a.mp4,x,\nb.mp4,y,\n", EditOptions(seed=1))[0] == BulkResult(2, 0, 0)
    (folder / "out/a.mp4").write_bytes(b"cut")
    assert run(folder, "a.mp4,x,\nb.mp4,y,\n", EditOptions(seed=1))[0] == BulkResult(1, 1, 0)


def test_another_model_or_video_makes_it_again(folder: Path) -> None:
    edits = list_edits(folder / "a.mp4", "x")
    for _ in range(2):
        model = torch.nn.Linear(1, 1)
        for name in ("device", "working_shape", "guidance", "num_inference_steps", "seed"):
            setattr(model, name, getattr(Inverting, name))
        model.edit_batch = Inverting().edit_batch  # type: ignore[assignment]
        assert edit_in_bulk(Editor(model), edits, folder / "out", tell=lambda _: None) == BulkResult(1, 0, 0)
        assert edit_in_bulk(Editor(model), edits, folder / "out", tell=lambda _: None) == BulkResult(0, 1, 0)
    write_clip(folder / "a.mp4", Clip(np.full((5, 3, 32, 48), 90, np.uint8), 8))
    assert edit_in_bulk(Editor(model), edits, folder / "out", tell=lambda _: None) == BulkResult(1, 0, 0)
    assert len(read_clip(folder / "out/a.mp4")) == 5
    (folder / "a.mp4").unlink()
    assert edit_in_bulk(Editor(model), edits, folder / "out", tell=lambda _: None) == BulkResult(0, 0, 1)


def test_what_was_bad_is_tried_again(folder: Path) -> None:
    assert run(folder, "broken.mp4,x,\n")[0].bad == 1
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes())
    assert run(folder, "broken.mp4,x,\n")[0] == BulkResult(1, 0, 0)
    assert read_quarantine(folder / "out/quarantine.jsonl") == {}
