"""Files, keys and CSVs that builders are fed from."""

import os
from pathlib import Path

from insvie_data_modules.listing import list_files, make_keys


def test_keys_are_legal_and_each_once() -> None:
    names = ["a b.mp4", "a/b.mp4", "a_b_2.mp4", "a.b/c.mp4", "../../etc/passwd.mp4", "\u732b.mp4", ".mp4"]
    assert make_keys(names) == ["a_b", "a_b_2", "a_b_2_2", "a_b_c", "etc_passwd", "file", "mp4"]
    assert make_keys(["x.mp4"] * 4) == ["x", "x_2", "x_3", "x_4"]
    assert len(set(make_keys(["x.mp4"] * 2000))) == 2000


def test_a_folder_is_listed_in_order_with_all_below_it_but_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.MP4", "a/y.txt", ".hidden.mp4", ".cache/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = list_files(tmp_path, {".mp4"}, "video").to_pylist()
    assert [(row["key"], row["name"], row["problem"]) for row in rows] == [("a_z", "a/z.MP4", ""), ("b", "b.mp4", "")]


def test_a_name_of_bytes_that_are_no_text_is_a_problem_of_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    (tmp_path / os.fsdecode(b"a\xff.mp4")).touch()
    bad, good = list_files(tmp_path, {".mp4"}, "video").to_pylist()
    assert bad["problem"] == "a\ufffd.mp4: its name is no UTF-8; rename it" and bad["key"] == "a"
    assert (good["key"], good["problem"]) == ("b", "")
