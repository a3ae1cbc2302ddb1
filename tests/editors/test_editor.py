"""`Editor`: any clip and any video file through an editor, by options that hold for one edit."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import Tensor

from insvie_lightning import EditOptions, Editor
from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.decode import uneven_seconds
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE, building
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import to_device_pixels, to_uint8
from insvie_lightning.video import read_clip, read_comment, write_clip, write_frames
from insvie_lightning.weights.deliverable import Deliverable, save_deliverable

Make = Callable[..., InsViE]


class Inverting:
    """Stands in for a model made for 49 frames of 64 x 96: inverts colours, and notes what it is given."""

    device = torch.device("cpu")
    working_shape = (49, 64, 96)
    guidance, num_inference_steps, seed = Guidance(2.0, 1.0), 50, 0

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.settings: list[tuple[Any, ...]] = []
        self.keys: set[str] = set()

    def edit_batch(self, batch: EditBatch) -> Tensor:
        assert batch.source is not None and batch.source.dtype == torch.uint8
        self.seen.append(tuple(batch.source.shape[1:]))
        self.settings.append((self.guidance, self.num_inference_steps, self.seed))
        self.keys |= {*batch.keys}
        return -to_device_pixels(batch.source)


def noise(frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 3, height, width), np.uint8)


# ---------------------------------------------------------------- frames


def test_every_length_comes_back_whole() -> None:
    for frames in range(1, 121):
        pixels, model = noise(frames), Inverting()
        edited = Editor(model).edit(Clip(pixels, 12.5), "invert")
        assert np.array_equal(edited.frames, 255 - pixels) and edited.fps == 12.5
        assert {length % 4 for length, *_ in model.seen} == {1} and max(model.seen)[0] <= 49
        assert model.seen[0][0] == min(49, 4 * -(-(frames - 1) // 4) + 1)


@pytest.mark.parametrize(
    ("frames", "seen", "kept"), [(9, 9, 9), (24, 21, 17), (49, 49, 49), (52, 49, 49), (120, 49, 49)]
)
def test_the_release_s_frame_rule_cuts(frames: int, seen: int, kept: int) -> None:
    pixels, model = noise(frames, 128, 96), Inverting()
    edited = Editor(model).edit(Clip(pixels, 25), "invert", frame_rule="release", resize="cover", fps=7)
    assert model.seen == [(seen, 3, 64, 96)]
    assert np.array_equal(edited.frames, 255 - pixels[:kept, :, 32:96]) and edited.fps == 7


def test_the_release_s_frame_rule_refuses_what_it_crashes_on() -> None:
    with pytest.raises(InputError, match="needs 9 frames or more, and this video has 8"):
        Editor(Inverting()).edit(Clip(noise(8), 25), "invert", frame_rule="release")


def test_windows_are_as_asked_and_start_from_the_same_noise() -> None:
    model = Inverting()
    Editor(model).edit(Clip(noise(30), 8), "invert", max_frames=12, overlap=3)
    assert [length for length, *_ in model.seen] == [9] * 5 and len(model.keys) == 1


# ---------------------------------------------------------------- size, settings


def test_the_network_works_at_the_size_that_is_asked_for() -> None:
    model = Inverting()
    for options in ({}, {"size": (16, 32)}, {"resize": "aspect"}):
        edited = Editor(model).edit(Clip(noise(1, 100, 50), 8), "invert", **options)
        assert edited.size == (100, 50)
    assert [size[2:] for size in model.seen] == [(64, 96), (16, 32), (112, 48)]


def test_settings_hold_for_one_edit() -> None:
    model = Inverting()
    options = EditOptions(guidance=Guidance(7.0, 1.5), num_inference_steps=3, seed=9)
    Editor(model).edit(Clip(noise(1), 8), "invert", options)
    Editor(model).edit(Clip(noise(1), 8), "invert", options, seed=0)
    Editor(model).edit(Clip(noise(1), 8), "invert")
    given = Guidance(7.0, 1.5)
    assert model.settings == [(given, 3, 9), (given, 3, 0), (Guidance(2.0, 1.0), 50, 0)]


def test_settings_come_back_after_a_failure() -> None:
    model = Inverting()
    model.edit_batch = lambda batch: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(ZeroDivisionError):
        Editor(model).edit(Clip(noise(1), 8), "invert", seed=9)
    assert "seed" not in vars(model) or model.seed == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (480, 721)}, r"size \(480, 721\): height and width are multiples of 16; did you mean \(480, 720\)\?"),
        ({"size": (0, 16)}, r"did you mean \(16, 16\)\?"),
        ({"fps": 0.0}, "fps 0.0: legal are rates above 0"),
        ({"fps": float("nan")}, "fps nan: legal"),
        ({"max_frames": 0}, "max_frames 0: legal are 1 and more"),
        ({"num_inference_steps": 0}, "num_inference_steps 0: legal are 1 and more"),
        ({"num_inference_steps": 1001}, "num_inference_steps 1001: legal are 1 to 1000"),
        ({"overlap": 25}, "overlap 25: legal are 0 to 24, half a window of 49 frames"),
        ({"overlap": -1}, "overlap -1: legal are 0 to 24"),
    ],
)
def test_an_illegal_option_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Editor(Inverting()).edit(Clip(noise(1), 8), "invert", **options)


def test_nothing_to_edit_or_to_change_is_one_sentence() -> None:
    with pytest.raises(InputError, match="a clip of 0 frames"):
        Editor(Inverting()).edit(Clip(noise(0), 8), "invert")
    with pytest.raises(InputError, match="the instruction is empty; say what to change"):
        Editor(Inverting()).edit(Clip(noise(1), 8), "  ")


@pytest.mark.parametrize("shape", [(9, 32, 48), (13, 32, 48), (9, 64, 96), (5, 16, 32)])
def test_a_batch_never_asks_for_more_than_the_base_was_made_for(shape: tuple[int, int, int]) -> None:
    model = Inverting()
    model.working_shape = (9, 32, 48)  # type: ignore[misc]
    frames, height, width = shape
    source = torch.full((2, frames, 3, height, width), 60, dtype=torch.uint8)
    edited = Editor(model).edit_batch(EditBatch(("a", "b"), ("invert", "invert"), source=source))
    assert torch.equal(to_uint8(edited.edited), 255 - source) and edited.source is edited.target is None
    assert all(length <= 9 and height * width <= 32 * 48 for length, _, height, width in model.seen)


def pair(frames: int, height: int, width: int) -> EditBatch:
    """Two sources of noise and their targets, which are darker."""
    source = torch.from_numpy(np.stack([noise(frames, height, width)] * 2))
    return EditBatch(("a", "b"), ("invert", "invert"), source=source, edited=source // 2)


def test_a_batch_is_edited_as_the_model_s_own_options_say() -> None:
    """The paper's protocol: squares are stretched to the network's size and back."""
    model, batch = Inverting(), pair(5, 64, 64)
    model.edit_options = EditOptions(resize="stretch", num_inference_steps=3)  # type: ignore[attr-defined]
    result = Editor(model).edit_batch(batch)
    assert model.seen == [(5, 3, 64, 96)] * 2 and model.settings[0][1] == 3
    assert result.source is result.target is None and result.edited.dtype == torch.uint8
    clip = Editor(model).edit(Clip(batch.source[0].numpy(), 8.0), "invert")  # type: ignore[index]
    assert np.array_equal(result.edited[0].numpy(), clip.frames)


def test_settings_alone_leave_a_batch_whole() -> None:
    model, batch = Inverting(), pair(9, 32, 48)
    model.edit_options = EditOptions(seed=9, fps=7.0)  # type: ignore[attr-defined]
    result = Editor(model).edit_batch(batch)
    assert model.seen == [(9, 3, 32, 48)] and model.settings == [(Guidance(2.0, 1.0), 50, 9)]
    assert result.edited.dtype == torch.float32 and model.seed == 0


@pytest.mark.parametrize(("resize", "size"), [("cover", (64, 96)), ("stretch", (128, 96))])
def test_what_the_release_cuts_is_cut_from_source_and_target_too(resize: str, size: tuple[int, int]) -> None:
    model, batch = Inverting(), pair(24, 128, 96)
    model.edit_options = EditOptions(frame_rule="release", resize=resize)  # type: ignore[arg-type,attr-defined]
    result = Editor(model).edit_batch(batch)
    assert result.source is not None and result.target is not None and batch.source is not None
    assert result.edited.shape == result.source.shape == result.target.shape == (2, 17, 3, *size)
    middle = slice(32, 96) if resize == "cover" else slice(None)
    assert torch.equal(result.source, batch.source[:, :17, :, middle])
    assert torch.equal(result.target, batch.source[:, :17, :, middle] // 2)
    if resize == "cover":
        assert torch.equal(result.edited, 255 - result.source)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("frames", [1, 8, 60])
def test_a_file_is_edited_as_a_clip(tmp_path: Path, frames: int) -> None:
    source = Clip(np.full((frames, 3, 64, 96), 60, np.uint8), 30000 / 1001)
    write_clip(tmp_path / "in.mp4", source, lossless=True)
    assert Editor(Inverting()).edit_file(tmp_path / "in.mp4", "invert", tmp_path / "out.mp4") == frames
    edited = read_clip(tmp_path / "out.mp4")
    assert edited.frames.shape == source.frames.shape and edited.fps == source.fps
    assert abs(edited.frames.astype(int) - 195).max() <= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_two_thousand_frames_are_written_while_they_are_edited(tmp_path: Path) -> None:
    model, held = Inverting(), []
    gradual = (np.full((3, 16, 32), i * 255 // 2000, np.uint8) for i in range(2000))
    write_frames(tmp_path / "in.mp4", gradual, 30)
    invert = model.edit_batch

    def edit_batch(batch: EditBatch) -> Tensor:
        held.append((tmp_path / ".out.mp4.tmp").exists())
        return invert(batch)

    model.edit_batch, model.working_shape = edit_batch, (49, 16, 32)  # type: ignore[method-assign]
    assert Editor(model).edit_file(tmp_path / "in.mp4", "invert", tmp_path / "out.mp4") == 2000
    edited = read_clip(tmp_path / "out.mp4").frames
    expected = 255 - np.arange(2000) * 255 // 2000
    assert len(edited) == 2000 and np.abs(edited.mean((1, 2, 3)) - expected).max() < 4
    assert len(held) == 49 and all(held)  # written while it is edited


def test_uneven_times_are_kept_unless_a_rate_is_asked_for(tmp_path: Path) -> None:
    seconds = [0.0, 0.1, 0.2, 0.7, 0.8, 2.0]
    write_frames(tmp_path / "in.mp4", noise(6), 5, seconds=seconds)
    editor = Editor(Inverting())
    editor.edit_file(tmp_path / "in.mp4", "invert", tmp_path / "out.mp4")
    assert uneven_seconds(tmp_path / "out.mp4") == pytest.approx(seconds, abs=1e-4)
    editor.edit_file(tmp_path / "in.mp4", "invert", tmp_path / "out.mp4", fps=7)
    assert uneven_seconds(tmp_path / "out.mp4") is None and read_clip(tmp_path / "out.mp4").fps == 7


def test_a_bad_video_leaves_the_old_output(tmp_path: Path) -> None:
    write_clip(tmp_path / "out.mp4", Clip(noise(3), 8))
    before = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"in\.mp4: no readable video"):
        Editor(Inverting()).edit_file(tmp_path / "in.mp4", "invert", tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == before


def test_the_source_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "in.mp4", Clip(noise(3), 8))
    before = (tmp_path / "in.mp4").read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"the output in\.mp4 is the video itself, which would be lost; name another"):
        Editor(Inverting()).edit_file(tmp_path / "in.mp4", "invert", "in.mp4")
    assert (tmp_path / "in.mp4").read_bytes() == before


def test_an_edited_file_tells_what_made_it(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", Clip(noise(3), 8))
    Editor(Inverting()).edit_file(tmp_path / "in.mp4", "größer", tmp_path / "out.mp4", seed=4)
    told = json.loads(read_comment(tmp_path / "out.mp4"))
    assert told == {
        "editor": "Inverting", "video": "in.mp4", "instruction": "größer", "seed": 4, "num_inference_steps": 50,
        "guidance": asdict(Guidance(2.0, 1.0)), "frame_rule": "keep", "resize": "pad", "weights": "",
        "video_bytes": (tmp_path / "in.mp4").stat().st_size, "video_mtime_ns": (tmp_path / "in.mp4").stat().st_mtime_ns,
    }  # fmt: skip


# ---------------------------------------------------------------- any editor


class OtherEditor(LightningModule):
    """An editor of another class."""

    working_shape = (9, 64, 96)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype, **settings: Any) -> "OtherEditor":
        editor = cls()
        editor.loaded = (str(folder), dtype, settings)  # type: ignore[assignment]
        return editor

    def edit_batch(self, batch: EditBatch) -> Tensor:
        assert batch.source is not None
        return -to_device_pixels(batch.source)


@pytest.fixture
def deliverable(tmp_path: Path) -> Callable[[str], Path]:
    """A deliverable of the named editor."""

    def save(name: str) -> Path:
        save_deliverable(Deliverable({"editor": name}, {"w": torch.zeros(1)}), tmp_path / "weights")
        return tmp_path / "weights"

    return save


def test_the_deliverable_names_the_editor(deliverable: Callable[[str], Path]) -> None:
    folder = deliverable("OtherEditor")
    editor = Editor.from_pretrained(folder, device="cpu", sampler="x")
    assert isinstance(editor.model, OtherEditor)
    assert editor.model.loaded == (str(folder), torch.float32, {"sampler": "x"})
    assert np.array_equal(editor.edit(Clip(noise(2), 8), "invert").frames, 255 - noise(2))


@pytest.mark.parametrize("name", ["OtherEditr", "Trainer", "BuildToy", "os.system"])
def test_an_editor_that_is_not_registered_is_one_sentence(deliverable: Callable[[str], Path], name: str) -> None:
    with pytest.raises(InputError, match=rf"is of the editor '{name}', which is not registered; known are .*InsViE"):
        Editor.from_pretrained(deliverable(name))


def test_from_pretrained_edits_as_the_model_itself(make_editor: Make, tmp_path: Path) -> None:
    model, clip = make_editor(random_weights=True), Clip(noise(5), 8)
    save_deliverable(model.deliverable(), tmp_path)
    editor = Editor.from_pretrained(tmp_path, device="cpu", num_inference_steps=1)
    assert isinstance(editor.model, InsViE) and editor.model.num_inference_steps == 1
    expected = model.edit(clip, "remove it", num_inference_steps=1).frames
    assert np.array_equal(editor.edit(clip, "remove it").frames, expected)
    assert not np.array_equal(editor.edit(clip, "remove it", seed=1).frames, expected)
    assert not np.array_equal(editor.edit(clip, "remove it", guidance=Guidance(9.0, 1.5)).frames, expected)


def test_half_precision_is_loaded_as_such_and_edits_nearly_the_same(
    make_editor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_deliverable(make_editor(random_weights=True).deliverable(), tmp_path)
    loaded, load = [], building.load_components
    monkeypatch.setattr(building, "load_components", lambda base, dtype: (loaded.append(dtype), load(base, dtype))[1])
    whole, half = (Editor.from_pretrained(tmp_path, device="cpu", dtype=dtype) for dtype in (None, torch.bfloat16))
    assert loaded == [torch.float32, torch.bfloat16]  # not made twice as large first
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in whole.model.parameters()} == {torch.float32}
    clip = Clip(noise(5), 8)
    pair = [editor.edit(clip, "remove it").frames.astype(float) for editor in (whole, half)]
    assert 0 < np.abs(pair[0] - pair[1]).mean() < 8
