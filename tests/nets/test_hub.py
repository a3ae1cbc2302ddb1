from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.nets.hub import model_file


def test_a_model_of_one_file_is_that_file_or_in_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.touch()
    other = tmp_path / "renamed.bin"
    other.touch()
    assert model_file(str(file), "net.pth", "look") == model_file(str(tmp_path), "net.pth", "look") == file
    assert model_file(str(other), "net.pth", "look") == other


def test_a_file_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pth does not exist; legal is a file such as net\.pth, its folder, or"):
        model_file(str(tmp_path / "gone.pth"), "net.pth", "look elsewhere")
    with pytest.raises(InputError, match=r"has no file net\.pth: look elsewhere$"):
        model_file(str(tmp_path), "net.pth", "look elsewhere")
