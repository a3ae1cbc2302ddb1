"""TGVE as published."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from insvie_data_modules.tgve import EDIT_TYPES, Tgve, read_tgve
from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.video import write_clip

HEADER = (
    "Video name,Our GT caption,Style Change Caption,Object Change Caption,Background Change Caption,"
    "Multiple Changes Caption,Source"
)
ROWS = [
    "DAVIS Videos:,,,,,,",
    "fish,a fish,a painted fish,a shark,a fish in a pond,a painted shark,x",
    ",,,,,,",
    "Youtube Videos:,,,,,,",
    "cat sun,a cat,a drawn cat,a dog,a cat in snow,a dog in snow,y",
]


def batches(data: Tgve) -> list[EditBatch]:
    return list(data.test_dataloader())


@pytest.fixture
def tgve(tmp_path: Path) -> Path:
    """One video of 6 frames in DAVIS, one folder of 5 frames in youtube."""
    pixels = np.zeros((6, 3, 16, 16), np.uint8)
    pixels[:, :, :, :8] = 255
    write_clip(tmp_path / "DAVIS_480p" / "480p_videos" / "fish.mp4", Clip(pixels, 12.0), lossless=True)
    frames = tmp_path / "youtube_480p" / "480p_frames" / "cat sun"
    frames.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.full((16, 16, 3), 10 * number, np.uint8)).save(frames / f"{number:05d}.png")
    (tmp_path / "LOVEU.csv").write_text("\n".join([HEADER, *ROWS]))
    sentences = {name: {f"edit_{edit}": f"{edit} {name}" for edit in EDIT_TYPES} for name in ("fish", "cat sun")}
    (tmp_path / "instructions.json").write_text(json.dumps(sentences))
    return tmp_path


def test_every_video_has_its_four_edits(tgve: Path) -> None:
    found = batches(Tgve(tgve))
    assert [batch.keys[0] for batch in found] == [
        f"{name}_{edit}" for name in ("fish", "cat_sun") for edit in EDIT_TYPES
    ]
    first, last = found[1], found[-1]
    assert (first.instructions, first.source_captions, first.edited_captions) == (
        ("object fish",), ("a fish",), ("a shark",),
    )  # fmt: skip
    assert first.edit_types == ("object",)
    assert first.source is not None and first.edited is None
    assert first.source.shape == (1, 6, 3, 16, 16) and first.fps == (12.0,)
    assert last.instructions == ("multiple cat sun",) and last.edited_captions == ("a dog in snow",)
    assert last.source is not None and last.fps == (10.0,)
    assert last.source[0, :, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


def test_captions_instead_of_instructions(tgve: Path) -> None:
    (tgve / "instructions.json").unlink()
    found = batches(Tgve(tgve, text="caption", edits=("style",)))
    assert [batch.instructions[0] for batch in found] == ["a painted fish", "a drawn cat"]
    with pytest.raises(InputError, match=r"'fish_style' has no instruction: .*--data\.text caption"):
        Tgve(tgve).test_dataloader()


def test_clips_are_stretched_as_the_paper_does(tgve: Path) -> None:
    (batch,) = batches(Tgve(tgve, edits=("style",), batch_size=2, frames=5, size=(16, 24)))
    assert batch.source is not None and batch.source.shape == (2, 5, 3, 16, 24)
    row = batch.source[0, 0, 0, 0].tolist()
    assert row[0] == 255 and row[-1] == 0 and row[10] > 128 > row[13]  # the edge at 8 of 16 is at 12 of 24


def test_longer_clips_are_sampled_to_as_many_frames(tgve: Path) -> None:
    assert Tgve(tgve).form.max_frames == 32
    found = batches(Tgve(tgve, edits=("style",), max_frames=2))
    assert [(batch.source.shape[1], batch.fps[0]) for batch in found] == [(2, 12 / 5), (2, 10 / 4)]  # type: ignore[union-attr]
    assert [len(batch.source[0]) for batch in batches(Tgve(tgve, edits=("style",), max_frames=None))] == [6, 5]  # type: ignore[index]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (ROWS[1:2], r"line 2: 'fish' stands before the first row such as 'DAVIS Videos:'"),
        ([*ROWS[:2], ROWS[1]], r"line 4: the video 'fish' stands there twice"),
        ([ROWS[0], "fish,a fish,a painted fish"], r"line 3: 'fish' has too few captions"),
        ([ROWS[3], ROWS[1]], r"there is no Youtube_480p/480p_videos/fish\.mp4 and no 480p_frames/fish in"),
        ([ROWS[0], "../fish,a,b,c,d,e"], r"line 3: .* has no instructions for '\.\./fish'; did you mean 'fish'"),
        ([], r"names no video"),
        ([ROWS[0], f"{'n' * 5000},a,b,c,d,e"], r"line 3: 'n{90}\.\.\.n{90}' can be the name of no video"),
        ([f"{'n' * 5000} videos:", ROWS[1]], r"line 2: 'n{90}\.\.\..* can be the name of no video"),
        ([ROWS[0], f"{'n' * 252},a,b,c,d,e"], r"line 3: .* can be the name of no video"),
    ],
)
def test_bad_rows_are_named(tgve: Path, rows: list[str], sentence: str) -> None:
    (tgve / "LOVEU.csv").write_text("\n".join([HEADER, *rows]))
    with pytest.raises(InputError, match=sentence):
        Tgve(tgve).test_dataloader()


def test_names_stay_in_their_folder(tgve: Path) -> None:
    (tgve / "LOVEU.csv").write_text("\n".join([HEADER, ROWS[0], "../480p_videos/fish,a,b,c,d,e"]))
    with pytest.raises(InputError, match=r"'\.\./480p_videos/fish' is no name of a video"):
        read_tgve(tgve)


def test_other_files_are_named(tgve: Path) -> None:
    (tgve / "instructions.json").write_text('["fish"]')
    with pytest.raises(InputError, match="holds a list, but a JSON object is needed"):
        read_tgve(tgve, tgve / "instructions.json")
    (tgve / "instructions.json").write_text("{")
    with pytest.raises(InputError, match="no readable JSON"):
        read_tgve(tgve, tgve / "instructions.json")
    (tgve / "LOVEU.csv").write_text("video,instruct\na.mp4,x\n")
    with pytest.raises(InputError, match=r"begins with 'video, instruct'; TGVE's CSV has the columns Video name"):
        read_tgve(tgve)
    with pytest.raises(InputError, match=r"there is no folder 'absent' of TGVE; give it with --data\.folder"):
        read_tgve(Path("absent"))
    (tgve / "more.csv").touch()
    with pytest.raises(InputError, match="holds 2 CSV files"):
        read_tgve(tgve)


def test_broken_frames_are_set_aside(tgve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tgve)
    frames = tgve / "youtube_480p" / "480p_frames" / "cat sun"
    Image.new("RGB", (8, 8)).save(frames / "00009.png")
    for said in ("6 frames of 2 sizes", "00009.png: no readable picture"):
        assert [batch.keys for batch in batches(Tgve(tgve, edits=("style",)))] == [("fish_style",)]
        bad = read_quarantine(tgve / "quarantine-data-rank0.jsonl")
        assert list(bad) == ["cat_sun_style"] and said in bad["cat_sun_style"]
        (frames / "00009.png").write_bytes(b"no picture")


def test_the_published_videos(shared: Path) -> None:
    folder = shared / "real" / "tgve"
    edits = read_tgve(folder, folder / "instructions.json")
    videos = {path for path in folder.glob("*/480p_videos/*.mp4")}
    assert {edit.video for edit in edits} == videos and len(edits) == 4 * len(videos)
    sentences = json.loads((folder / "instructions.json").read_text())
    for number in (1, len(edits) - 1):
        edit, sample = edits[number], Tgve(folder, frames=5, size=(32, 48)).test_dataloader().dataset[number]
        assert sample.instruction == sentences[edit.video.stem][f"edit_{edit.edit_type}"].strip()
        assert (sample.key, sample.edited_caption) == (f"{edit.video.stem}_{edit.edit_type}", edit.edited_caption)
        assert sample.tensors["source"].shape == (5, 3, 32, 48)
