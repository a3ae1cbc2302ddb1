import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.locate import locate
from insvie_lightning.shards.read import read_members


def release(folder: Path, rows: str, **zips: dict[str, str]) -> Path:
    """Write train.csv with `rows`, and zips by their name without suffix: member -> text; `__` stands for a slash."""
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text(f"video,instruct\n{rows}", encoding="utf-8")
    for name, members in zips.items():
        path = folder / f"{name.replace('__', '/')}.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
    return folder / "train.csv"


def located(src: Path, **options: Any) -> list[dict[str, Any]]:
    return locate(src, src.parent, builder="test", **options).to_pylist()


def contents(src: Path, **options: Any) -> list[tuple[bytes, ...] | str]:
    """Of each row the bytes of its source and edited video, or the reason why there are none."""
    rows = located(src, **options)
    return [tuple(read_members(src.parent, row).values()) if row["accepted"] else row["reason"] for row in rows]


def test_members_are_found_in_whichever_zip_has_them(tmp_path: Path) -> None:
    rows = "a.mp4,x\nb.mp4,y\npexel-static-c.mp4,z\n"
    src = release(
        tmp_path, rows, source__1={"s/a.mp4": "a", "s/b.mp4": "b"}, source__2={"pexel-static-c.mp4": "c"},
        edited__1={"pexel-static-c.mp4": "C", "d.mp4": "D"}, edited__2={"in/here/b.mp4": "B", "a.mp4": "A"},
    )  # fmt: skip
    assert contents(src) == [(b"a", b"A"), (b"b", b"B"), (b"c", b"C")]
    first, _, last = located(src, dataset="InsViE-1M")
    assert (first["key"], first["instruction"], first["origin"]) == ("a", "x", "real")
    assert (first["dataset"], first["source_shard"], first["shard"]) == ("InsViE-1M", "source/1.zip", "edited/2.zip")
    assert last["origin"] == "static"
    assert {name for name in ("frames", "height", "width", "fps") if first[name] is not None} == set()
    assert '"line":2' in first["lineage"] and f'"{tmp_path}/source/a.mp4"' in first["lineage"]


def test_folders_behind_links_are_found(tmp_path: Path) -> None:
    """Zips and files on other disks, and links that lead back."""
    disk = tmp_path / "disk"
    src = release(tmp_path / "set", "a.mp4,x\n00/b.mp4,y\n", source__0={"a.mp4": "a", "00/b.mp4": "b"})
    release(disk, "", zips__0={"a.mp4": "A"})
    (disk / "files").mkdir()
    (disk / "files" / "b.mp4").write_text("B")
    edited = tmp_path / "set" / "edited"
    edited.mkdir()
    for link, target in {"00": disk / "files", "zips": disk / "zips", "up": tmp_path, "self": edited}.items():
        (edited / link).symlink_to(target, target_is_directory=True)
    (disk / "zips" / "back").symlink_to(edited, target_is_directory=True)
    assert contents(src) == [(b"a", b"A"), (b"b", b"B")]
    assert {row["shard"] for row in located(src)} == {"edited/zips/0.zip", "edited/00/b.mp4"}


def test_zips_by_pattern_or_name_beside_the_csv(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\nb.mp4,y\n", src_0={"a.mp4": "a"}, src_1={"b.mp4": "b"}, edited={"a.mp4": "A"})
    assert contents(src, source_dir="src_*.zip") == [(b"a", b"A"), "edited clip: no such file"]


def test_rows_of_five_columns_name_their_folder(tmp_path: Path) -> None:
    src = release(tmp_path, "", source={"a.mp4": "a"}, one={"a.mp4": "A1"}, two={"two/a.mp4": "A2"})
    src.write_text(
        "video,caption,instruction,edited_caption,folder\na.mp4,c,x,d,one\na.mp4,c,y,d,two\na.mp4,c,z,d,three\n"
    )
    assert contents(src) == [(b"a", b"A1"), (b"a", b"A2"), "edited clip: no such file"]
    first = located(src, origin="pair")[0]
    assert (first["source_caption"], first["edited_caption"], first["origin"]) == ("c", "d", "pair")


def test_deflated_members_are_unpacked(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"})
    with zipfile.ZipFile(tmp_path / "edited.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", "A" * 1000)
    assert contents(src) == [(b"a", b"A" * 1000)]
    assert located(src)[0]["members"][1]["size"] < 100


def test_members_written_to_a_pipe_have_their_checksum_behind_them(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"})

    class Pipe:
        def __init__(self, path: Path) -> None:
            self.file = path.open("wb")
            self.write, self.flush = self.file.write, self.file.flush

    pipe = Pipe(tmp_path / "edited.zip")
    with zipfile.ZipFile(pipe, "w") as archive:  # type: ignore[call-overload]
        archive.writestr("a.mp4", "A")
    pipe.file.close()
    assert contents(src) == [(b"a", b"A")]
    data = (tmp_path / "edited.zip").read_bytes()
    (tmp_path / "edited.zip").write_bytes(data.replace(b"a.mp4A", b"a.mp4B"))
    with pytest.raises(InputError, match=r"edited\.zip: the member at byte 0 is damaged"):
        contents(src)


def test_names_that_would_leave_the_folder_if_they_were_extracted(tmp_path: Path) -> None:
    src = release(
        tmp_path, "a.mp4,x\nb.mp4,x\nc.mp4,x\n../up.mp4,x\n/etc/passwd,x\n",
        source={"/abs/a.mp4": "a", "../b.mp4": "b", "win\\c.mp4": "c"},
        edited={"a.mp4": "A", "b.mp4": "B", "c.mp4": "C"},
    )  # fmt: skip
    before = sorted(os.listdir(tmp_path.parent))
    found = contents(src)
    assert found[:3] == [(b"a", b"A"), (b"b", b"B"), (b"c", b"C")]
    assert all("not below the folder" in str(reason) for reason in found[3:])
    assert sorted(os.listdir(tmp_path.parent)) == before


def test_names_that_several_videos_have(tmp_path: Path) -> None:
    src = release(
        tmp_path, "a.mp4,x\nb.mp4,x\nc.mp4,x\nd/d.mp4,x\n",
        source={"a.mp4": "a", "b.mp4": "b", "c.mp4": "c", "d.mp4": "d"},
        edited__1={"x/a.mp4": "A", "x/b.mp4": "B", "c.mp4": "C", "d/d.mp4": "D"},
        edited__2={"y/a.mp4": "other", "y/b.mp4": "B", "z/c.mp4": "other", "e/d.mp4": "other"},
    )  # fmt: skip
    assert contents(src) == [
        "edited clip: different videos of that name lie in edited/1.zip and edited/2.zip",
        (b"b", b"B"),  # the same twice
        (b"c", b"C"),  # called exactly so
        (b"d", b"D"),  # the folder in the row tells
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_one_zip(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"})
    with zipfile.ZipFile(tmp_path / "edited.zip", "w") as archive:
        archive.writestr("a.mp4", "A")
        archive.writestr("a.mp4", "B")
    assert contents(src) == ["edited clip: different videos of that name lie in edited.zip"]


def test_a_file_goes_before_a_member(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\nsub/b.mp4,y\n", source={"a.mp4": "a", "b.mp4": "b"}, edited__1={"a.mp4": "A"})
    (tmp_path / "edited" / "sub").mkdir()
    (tmp_path / "edited" / "a.mp4").write_text("file A")
    (tmp_path / "edited" / "sub" / "b.mp4").write_text("file B")
    assert contents(src) == [(b"a", b"file A"), (b"b", b"file B")]


def test_keys_are_unique_and_repeated_rows_rejected(tmp_path: Path) -> None:
    rows = "a.mp4,x\na.mp4,x\na.mp4,y\na-2.mp4,x\nb c.mp4,x\nb,c.mp4\nb_c.mp4,x\n"
    names = ("a", "a-2", "b c", "b_c")
    members = {f"{name}.mp4": name for name in names}
    found = located(release(tmp_path, rows, source=members, edited=members))
    assert [row["key"] for row in found] == ["a", "a-2-line3", "a-3", "a-2", "b_c", "b", "b_c-2"]
    assert found[1]["reason"] == "the row repeats line 2"
    assert [row["accepted"] for row in found] == [True, False, True, True, True, False, True]


def test_cut_zip(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\nb.mp4,x\n", source={"a.mp4": "a", "b.mp4": "b"}, edited__1={"a.mp4": "A"})
    good = (tmp_path / "edited" / "1.zip").read_bytes()
    (tmp_path / "edited" / "2.zip").write_bytes(good[:-30])
    (tmp_path / "edited" / "3.zip").touch()
    first, second = contents(src)
    assert first == (b"a", b"A")
    assert str(second).startswith("edited clip: no such file; 2.zip is no whole zip (File is not a zip file); fetch it")
    assert "3.zip is no whole zip" in str(second)


def test_zip_cut_after_its_directory_was_read(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"}, edited={"a.mp4": "A" * 100})
    (row,) = located(src)
    os.truncate(tmp_path / "edited.zip", 60)
    with pytest.raises(InputError, match=r"edited\.zip is cut: bytes 35 to 135 are not all there"):
        read_members(tmp_path, row)


def test_another_zip_of_the_same_name(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"}, edited={"0.mp4": "0", "a.mp4": "A"})
    (row,) = located(src)
    (tmp_path / "edited.zip").write_bytes(b"x" * 200)
    with pytest.raises(InputError, match=r"edited\.zip has no member at byte 36: it is not the zip that was indexed"):
        read_members(tmp_path, row)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("flag_bits", 1, "encrypted in its zip"), ("compress_type", 14, "compression method 14 of zips is not read")],
)
def test_members_that_cannot_be_unpacked(tmp_path: Path, field: str, value: int, reason: str) -> None:
    src = release(tmp_path, "a.mp4,x\n", source={"a.mp4": "a"})
    with zipfile.ZipFile(tmp_path / "edited.zip", "w") as archive:
        archive.writestr("a.mp4", "A")
        setattr(archive.filelist[0], field, value)  # what is written into the directory
    assert contents(src) == [f"edited clip: {reason}"]


def test_nothing_where_the_videos_should_be(tmp_path: Path) -> None:
    src = release(tmp_path, "a.mp4,x\n", InsViE_source_1={"a.mp4": "a"})
    with pytest.raises(
        InputError, match=r"no videos or zips in .*/edited or .*/source; .* has InsViE_source_1\.zip, train"
    ):
        located(src)


def test_broken_csv_is_said_plainly(tmp_path: Path) -> None:
    src = release(tmp_path, "", source={"a.mp4": "a"})
    src.write_bytes(b"video,instruct\n" + b"a.mp4,x\n" * 10_000 + b"b.mp4,\xff\n")
    with pytest.raises(InputError, match="no readable CSV"):
        located(src)
