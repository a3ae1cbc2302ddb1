from pathlib import Path

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.nets.hub import model_file, model_folder


def test_a_model_of_one_file_is_that_file_or_in_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.touch()
    other = tmp_path / "renamed.bin"
    other.touch()
    assert model_file(str(file), ["net.pth"], "look") == model_file(str(tmp_path), ["net.pth"], "look") == file
    assert model_file(str(other), ["net.pth"], "look") == other


def test_the_first_name_that_a_folder_has_is_taken(tmp_path: Path) -> None:
    (tmp_path / "old.pth").touch()
    assert model_file(str(tmp_path), ["new.safetensors", "old.pth"], "look") == tmp_path / "old.pth"
    (tmp_path / "new.safetensors").touch()
    assert model_file(str(tmp_path), ["new.safetensors", "old.pth"], "look") == tmp_path / "new.safetensors"


def test_a_cache_with_another_programs_tokenizer_alone_is_not_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("insvie_lightning.nets.hub.HfApi.model_info", lambda *args, **options: 1 / 0)
    commit = "0" * 40
    cached = tmp_path / "models--who--clip/snapshots" / commit
    cached.mkdir(parents=True)
    (tmp_path / "models--who--clip/refs").mkdir()
    (tmp_path / "models--who--clip/refs/main").write_text(commit)
    (cached / "vocab.json").touch()
    assert model_folder("who/clip", ["vocab.json"], "look") == cached
    with pytest.raises(InputError, match="neither a folder here nor to be had from the hub"):
        model_folder("who/clip", ["vocab.json", "model.safetensors"], "look")
    (cached / "model.safetensors").touch()
    assert model_folder("who/clip", ["vocab.json", "model.safetensors"], "look") == cached


def test_a_file_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pth does not exist; legal is a file such as net\.pth, its folder, or"):
        model_file(str(tmp_path / "gone.pth"), ["net.pth"], "look elsewhere")
    with pytest.raises(InputError, match=r"has no file net\.pth: look elsewhere$"):
        model_file(str(tmp_path), ["net.pth"], "look elsewhere")
