"""Members of zips, unpacked where they lie."""

import zipfile
from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.archives import unzip_member


def member(folder: Path, data: bytes) -> bytes:
    """Pack data, and unpack it by the place that the zip's directory tells."""
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", data)
        info = archive.getinfo("a.mp4")
    packed = path.read_bytes()
    return unzip_member(
        lambda size, offset: packed[offset : offset + size], info.header_offset, info.compress_size, "a.zip"
    )


def test_a_member_comes_back(tmp_path: Path) -> None:
    data = bytes(range(256)) * 400
    assert member(tmp_path, data) == data
    assert member(tmp_path, bytes(900_000)) == bytes(900_000)  # the first megabyte may be of zeros


def test_a_bomb_is_refused_long_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.zip: the member at byte 0 has more than 1,\d{3},\d{3} bytes out of \d,"):
        member(tmp_path, bytes(4_000_000))
