"""The edits of a folder, a video or a CSV."""

from pathlib import Path

import pytest

from insvie_lightning.edit_list import Edit, check, list_edits
from insvie_lightning.errors import InputError


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("b.mp4", "a cat.MOV", "notes.txt"):
        (folder / name).touch()
    return folder


def test_a_folder_has_one_instruction(videos: Path) -> None:
    assert list_edits(videos, "blue") == [
        Edit("a_cat", videos / "a cat.MOV", "blue", "a_cat.mp4"),
        Edit("b", videos / "b.mp4", "blue", "b.mp4"),
    ]


def test_one_video_is_enough(videos: Path) -> None:
    assert list_edits(videos / "b.mp4", "blue") == [Edit("b", videos / "b.mp4", "blue", "b.mp4")]


def test_a_csv_gives_each_video_its_instruction_and_output(videos: Path) -> None:
    csv = videos / "edits.csv"
    csv.write_text(
        'video,instruction,output\nb.mp4,"red, please",\nb.mp4,,x/y.mp4\na cat.MOV, a dog\n', encoding="utf-8-sig"
    )
    assert list_edits(csv, "blue") == [
        Edit("b", videos / "b.mp4", "red, please", "b.mp4"),
        Edit("b-2", videos / "b.mp4", "blue", "x/y.mp4"),
        Edit("a_cat", videos / "a cat.MOV", "a dog", "a_cat.mp4"),
    ]


def test_the_released_csv_calls_it_instruct(videos: Path) -> None:
    (videos / "edits.csv").write_text("video,instruct\nb.mp4,größer\n", encoding="utf-8")
    assert [edit.instruction for edit in list_edits(videos / "edits.csv")] == ["größer"]


def test_spaces_around_names_of_columns_do_not_matter(videos: Path) -> None:
    (videos / "edits.csv").write_text("video , instruction, output\nb.mp4, red, x.mp4\n")
    assert list_edits(videos / "edits.csv") == [Edit("b", videos / "b.mp4", "red", "x.mp4")]


def test_a_table_without_instructions_needs_one_for_all(videos: Path) -> None:
    (videos / "edits.csv").write_text("video,instuction\nb.mp4,red\n")
    with pytest.raises(
        InputError, match=r"columns video, instuction, and none for instruction: .*; did you mean 'instuction'\?"
    ):
        list_edits(videos / "edits.csv")
    assert [edit.instruction for edit in list_edits(videos / "edits.csv", "blue")] == ["blue"]


def test_without_any_instruction_nothing_is_listed(videos: Path) -> None:
    (videos / "edits.csv").write_text("video,instruction\nb.mp4,\n")
    for source in (videos, videos / "b.mp4", videos / "edits.csv"):
        with pytest.raises(InputError, match=rf"{source} has no instruction: give one for all, or a CSV"):
            list_edits(source)


def test_keys_never_repeat(tmp_path: Path) -> None:
    for name in ("x.mp4", "x.mov", "x-2.mp4"):
        (tmp_path / name).touch()
    assert sorted(edit.key for edit in list_edits(tmp_path, "blue")) == ["x", "x-2", "x-3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"videos,instruct\nb.mp4,x\n",
            "has the columns videos, instruct, and none for video: known are video, .*; rename yours; .* 'videos'",
        ),
        (b"", "has the columns none, and none for video: known are"),
        (b"video,instruction\n", "holds no video"),
        (b"video,instruction\nb.mp4,gr\xf6\xdfer\n", "edits.csv is no readable CSV"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "edits.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        list_edits(tmp_path / "edits.csv", "blue")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        list_edits(tmp_path / "absent", "blue")
    with pytest.raises(InputError, match=r"holds no video; legal endings are .*\.mp4"):
        list_edits(tmp_path, "blue")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",x,", "the row names no video"),
        ("b.mp4,,", "b.mp4 has no instruction: give one for all, or a CSV"),
        ("b.mp4,x,../y.mp4", "the output '../y.mp4' leaves the output folder"),
        ("b.mp4,x,/y.mp4", "the output '/y.mp4' leaves the output folder"),
        ("b.mp4,x,y.mov", "the output 'y.mov' is no mp4; did you mean 'y.mp4'"),
    ],
)
def test_what_is_wrong_with_one_row_is_said_of_that_row(videos: Path, row: str, said: str) -> None:
    (videos / "edits.csv").write_text(f"video,instruction,output\nb.mp4,x,y.mp4\n{row}\n")
    good, bad = list_edits(videos / "edits.csv")
    check(good)
    with pytest.raises(InputError, match=said):
        check(bad)


@pytest.mark.parametrize("name", ["n" * 5000 + ".mp4", "a\0b.mp4"])
def test_a_name_that_no_file_can_have_is_one_short_sentence(name: str, tmp_path: Path) -> None:
    for edit in (Edit("k", tmp_path / name, "blue", "k.mp4"), Edit("k", tmp_path / "a.mp4", "blue", name)):
        with pytest.raises(
            InputError, match=r"can be the name of no file; legal are 255 bytes a part and no NUL"
        ) as said:
            check(edit)
        assert len(str(said.value)) < 300
