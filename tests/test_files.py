"""What is opened from outside."""

import os
import socket
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.files import open_regular, open_text, read_bytes, read_json


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    assert read_bytes(tmp_path / "x") == read_bytes(tmp_path / "link") == b"abc"
    with open_regular(tmp_path / "x") as file:
        assert file.read() == b"abc"


def test_nothing_else_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("endless").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    said = {
        "pipe": "pipe: no regular file, but a picture is needed",
        "endless": "endless: no regular file",
        "socket": "socket: no such device",
        ".": ".: is a directory",
        "nowhere": "nowhere: no such file",
        "nul\0": "embedded null byte, but a picture is needed",
    }
    for name, sentence in said.items():
        with pytest.raises(InputError, match=sentence):
            read_bytes(Path(name), "a picture")
    with pytest.raises(InputError, match=r"^the frame: no such file"):
        read_bytes(Path("nowhere"), "a picture", "the frame")


def test_a_disk_that_fails_is_one_sentence() -> None:
    with pytest.raises(InputError, match="input/output error, but a file is needed"):
        read_bytes(Path("/proc/self/mem"))
    with pytest.raises(InputError, match="is no readable CSV"), open_text(Path("/proc/self/mem")) as file:
        file.read()


def test_text_keeps_its_line_ends_and_loses_its_mark(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb")
    with open_text(tmp_path / "x") as file:
        assert file.read() == "a\r\nb"
    (tmp_path / "x").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="is no readable CSV: 'utf-8' codec"), open_text(tmp_path / "x") as file:
        file.read()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no readable JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "holds a list, but a JSON object is needed"),
        (r'{"a": "\ud800"}', "is no readable JSON: .*surrogates not allowed"),
        ('{"a": 1' + "0" * 5000 + "}", "is no readable JSON: Exceeds the limit"),
    ],
)
def test_json_of_another_kind_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_json(tmp_path / "x.json")


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(r'{"a": "\ud83d\ude00"}')  # a whole pair
    assert read_json(tmp_path / "x.json") == {"a": "\N{GRINNING FACE}"}
    (tmp_path / "x.json").write_text("[1]")
    assert read_json(tmp_path / "x.json", list) == [1]


def test_a_long_name_does_not_make_a_long_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"n\.\.\.n+: file name too long, but a video is needed") as said:
        open_regular(tmp_path / ("n" * 5000), "a video", "n" * 5000)
    assert len(str(said.value)) < 300
