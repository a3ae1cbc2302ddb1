"""TGVE+ as published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from insvie_data_modules.tgve_plus import TgvePlus, read_tgve_plus
from insvie_lightning.batch import Clip
from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.errors import InputError
from insvie_lightning.video import write_clip

ROWS = [
    ("DAVIS_480p/480p_videos/fish.mp4", "remove it", "a fish", "water", "remove"),
    ("loveu/DAVIS_480p/480p_videos/fish.mp4", "remove all", "a fish", "nothing", "remove"),
    ("DAVIS_480p/480p_frames/fish", "add a hat", "a fish", "a fish with a hat", "add"),
    ("cat sun", "paint it", "a cat", "a painted cat", "style"),
]
NAMES = ("video_path", "instruction", "input_caption", "output_caption", "task")
Table = Callable[..., Path]


@pytest.fixture
def tgve(tmp_path: Path, make_clip: Callable[..., Clip]) -> Path:
    """A video of 70 frames, and one of 3 frames as images."""
    folder = tmp_path / "tgve"
    write_clip(folder / "DAVIS_480p/480p_videos/fish.mp4", make_clip(70), lossless=True)
    frames = folder / "youtube_480p/480p_frames/cat sun"
    frames.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((16, 16, 3), 10 * number, np.uint8)).save(frames / f"{number}.png")
    return folder


@pytest.fixture
def make_table(tmp_path: Path) -> Table:
    def make(rows: list[tuple[str, ...]] = ROWS, names: tuple[str, ...] = NAMES) -> Path:
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        pq.write_table(pa.table({**columns, "extra": list(range(len(rows)))}), tmp_path / "plus.parquet")
        return tmp_path / "plus.parquet"

    return make


def test_every_row_is_an_edit_of_a_video_of_tgve(tgve: Path, make_table: Table) -> None:
    batches = list(TgvePlus(make_table(), tgve).test_dataloader())
    assert [batch.keys[0] for batch in batches] == ["fish_remove", "fish_remove-2", "fish_add", "cat_sun_style"]
    first, last = batches[0], batches[-1]
    assert (first.instructions, first.source_captions, first.edited_captions, first.edit_types) == (
        ("remove it",), ("a fish",), ("water",), ("remove",),
    )  # fmt: skip
    assert first.edited is None and first.source is not None and first.source.shape == (1, 32, 3, 32, 48)
    assert first.source[0, :, 2, 0, 0].tolist() == list(range(0, 64, 2))  # of 70 frames every second one
    assert first.fps == (4.0,)
    assert last.source is not None and last.source.shape == (1, 3, 3, 16, 16) and last.fps == (10.0,)


def test_the_path_says_which_of_two_videos_of_one_name(
    tgve: Path, make_table: Table, make_clip: Callable[..., Clip]
) -> None:
    write_clip(tgve / "videvo_480p/480p_videos/fish.mp4", make_clip(3), lossless=True)
    row = ("tgve/videvo_480p/480p_videos/fish", "x", "a", "b", "t")
    (edit,) = read_tgve_plus(make_table([row]), tgve)
    assert edit.video == tgve / "videvo_480p/480p_videos/fish.mp4"


def test_tasks_and_text_are_chosen(tgve: Path, make_table: Table) -> None:
    data = TgvePlus(make_table(), tgve, tasks=("add", "style"), text="caption", frames=2, size=(16, 16))
    assert [batch.instructions[0] for batch in data.predict_dataloader()] == ["a fish with a hat", "a painted cat"]
    with pytest.raises(InputError, match=r"no task 'ad'; legal are add, remove, style; did you mean 'add'"):
        TgvePlus(make_table(), tgve, tasks=("ad",)).test_dataloader()


def test_columns_go_by_other_names(tgve: Path, make_table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_tgve_plus(make_table(), tgve)
    assert read_tgve_plus(make_table(names=("Path", "Instruct", "Caption", "Target caption", "type")), tgve) == expected
    odd = make_table(names=("v", "instruction", "input_caption", "wish", "task"))
    with pytest.raises(InputError, match=r"has the columns v, instruction, .* and none for video: .*columns\.video"):
        read_tgve_plus(odd, tgve)
    assert read_tgve_plus(odd, tgve, {"video": "v", "edited_caption": "wish"}) == expected
    monkeypatch.chdir(tgve)
    arguments = [
        f"--data.table={odd}",
        f"--data.folder={tgve}",
        "--data.columns.video=v",
        "--data.columns.edited_caption=wish",
    ]
    built = InsvieCLI(["--model=InsViE", "--data=TgvePlus", *arguments], run=False)
    assert len(built.datamodule.test_dataloader()) == len(ROWS)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            ("DAVIS_480p/480p_videos/cow.mp4", "x", "a", "b", "t"),
            r"row 1: there is no 'DAVIS_480p/480p_videos/cow\.mp4'",
        ),
        (("../secret.mp4", "x", "a", "b", "t"), r"row 1: '\.\./secret\.mp4' is no path of a video inside"),
        (("/etc/passwd", "x", "a", "b", "t"), r"row 1: '/etc/passwd' is no path of a video inside"),
        (("", "x", "a", "b", "t"), r"row 1: '' is no path"),
        (("n" * 5000, "x", "a", "b", "t"), r"row 1: 'n{90}\.\.\.n{90}' is no path"),
        (("fish", "", "a", "b", "t"), r"'fish_t' has no instruction: .*--data\.text caption"),
    ],
)
def test_bad_rows_are_named(tgve: Path, make_table: Table, row: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        TgvePlus(make_table([row]), tgve).test_dataloader()


def test_other_files_are_named(tgve: Path, make_table: Table) -> None:
    with pytest.raises(InputError, match="has no rows"):
        read_tgve_plus(make_table([]), tgve)
    with pytest.raises(InputError, match=r"there is no folder 'absent' of TGVE's videos"):
        read_tgve_plus(make_table(), Path("absent"))
    table = make_table()
    table.write_bytes(b"no table")
    with pytest.raises(InputError, match=r"plus\.parquet is no readable Parquet file"):
        read_tgve_plus(table, tgve)
    with pytest.raises(InputError, match=r"there is no file '.*absent\.parquet'; give .* with --data\.table"):
        read_tgve_plus(tgve / "absent.parquet", tgve)
