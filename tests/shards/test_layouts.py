import json
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.layouts import guess_origin, read_layout


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "captions", "folder"),
    [
        ("video,instruct\na.mp4,make it red\n", ("", ""), "edited"),
        ("video,source_caption,instruction\na.mp4,a cat,make it red\n", ("a cat", ""), "edited"),
        (
            "source_video,source_caption,instruction,edited_caption,edited_folder\na.mp4,a cat,make it red,a dog,e2\n",
            ("a cat", "a dog"),
            "e2",
        ),
        ("\ufeffVideo,Instruct\na.mp4,make it red\n\n", ("", ""), "edited"),
    ],
)
def test_released_layouts(tmp_path: Path, text: str, captions: tuple[str, str], folder: str) -> None:
    (entry,) = read_layout(write(tmp_path / "train.csv", text))
    assert (entry.key, entry.instruction, entry.problem, entry.line) == ("a", "make it red", "", 2)
    assert (entry.video, entry.source_folder, entry.edited_folder) == (
        "a.mp4", tmp_path / "source", tmp_path / folder,
    )  # fmt: skip
    assert (entry.source_caption, entry.edited_caption) == captions


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,make it red\nb.mp4,make it blue\n",
        "video\na.mp4\n",
        "a,b\n1,2\n",
        "name,age,mail,street\n1,2,3,4\n",
        "\0" * 2000,
    ],
)
def test_header_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        InputError, match=r"train\.csv: the first row .{1,200} is no known header; legal: `video,instruct`"
    ):
        read_layout(write(tmp_path / "train.csv", text))


@pytest.mark.parametrize(("text", "sentence"), [("", "is empty"), ("video,instruct\n", "has a header but no rows")])
def test_csv_without_rows(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_layout(write(tmp_path / "train.csv", text))


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("video,instruct\na.mp4,mach es grün\n".encode("utf-16"))
    with pytest.raises(InputError, match="no readable CSV"):
        read_layout(tmp_path / "train.csv")


def test_csv_that_breaks_off_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"video,instruct\n" + b"a.mp4,x\n" * 10_000 + b"b.mp4,\xff\n")
    with pytest.raises(InputError, match="no readable CSV: 'utf-8' codec"):
        list(read_layout(tmp_path / "train.csv"))


def test_problems_of_rows(tmp_path: Path) -> None:
    text = "video,instruct\na.mp4,x\nb.mp4\n,x\nc.mp4,\na.mp4,y\nsub/a é.mp4,x\n../d.mp4,x\n/e.mp4,x\n"
    entries = read_layout(write(tmp_path / "train.csv", text))
    assert [(entry.key, entry.problem) for entry in entries] == [
        ("a", ""),
        ("b", "the row has 1 columns, its header 2"),
        ("line_4", "the row has no video"),
        ("c", "the row has no instruction"),
        ("a", ""),
        ("sub_a_", ""),
        ("_d", "the row names '../d.mp4', which is not below the folder of its CSV"),
        ("_e", "the row names '/e.mp4', which is not below the folder of its CSV"),
    ]


def test_edited_folder_outside(tmp_path: Path) -> None:
    text = "source_video,source_caption,instruction,edited_caption,edited_folder\na.mp4,a,b,c,../e\n"
    (entry,) = read_layout(write(tmp_path / "train.csv", text))
    assert entry.problem == "the row names '../e', which is not below the folder of its CSV"


def test_folder_with_one_csv(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "video,instruct\na.mp4,x\n")
    assert [entry.key for entry in read_layout(tmp_path)] == ["a"]
    write(tmp_path / "test.csv", "video,instruct\na.mp4,x\n")
    with pytest.raises(InputError, match="holds 2 CSV files"):
        read_layout(tmp_path)


def test_folder_with_instructions(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "before" / f"{name}.mp4").touch()
    write(tmp_path / "instructions.json", json.dumps({"a": "make it red", "b.mp4": "make it blue"}))
    entries = list(read_layout(tmp_path, source_dir="before", edited_dir="after"))
    assert [entry.instruction for entry in entries] == ["make it red", "make it blue", ""]
    assert (entries[0].video, entries[0].edited_folder) == ("a.mp4", tmp_path / "after")
    assert entries[2].problem == "the row has no instruction"


def test_origin_of_released_names() -> None:
    names = ("pexel-static-1.mp4", "pexel-1.mp4", "openvid_1.mp4", "magicbrush_1.mp4", "instructp2p_1.mp4")
    assert [guess_origin(name) for name in names] == ["static", "real", "real", "pair", "pair"]
