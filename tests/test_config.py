from pathlib import Path

import pytest

from insvie_lightning import config
from insvie_lightning.config import config_root, find_config, header, recipes
from insvie_lightning.errors import InputError


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "configs"
    (root / "build").mkdir(parents=True)
    (root / "s1.yaml").write_text("# Stage 1: the first set.\n# More.\n")
    (root / "build" / "captions.yaml").write_text("model: 1\n")
    monkeypatch.setattr(config, "config_root", lambda: root)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return root


def test_editable_install_reads_the_folder_at_the_root() -> None:
    assert config_root() == Path(config.__file__).resolve().parents[2] / "configs"


def test_installed_package_reads_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(config, "__file__", str(tmp_path / "config.py"))
    assert config_root() == tmp_path / "configs"


def test_recipes_carry_the_first_header_line(shipped: Path) -> None:
    assert recipes() == {"build/captions": "", "s1": "Stage 1: the first set."}
    assert header(shipped / "s1.yaml") == "Stage 1: the first set."


@pytest.mark.parametrize(("value", "name"), [("s1", "s1"), ("s1.yaml", "s1"), ("build/captions", "build/captions")])
def test_bare_names_are_found_from_any_folder(shipped: Path, value: str, name: str) -> None:
    assert find_config(value) == str(shipped / f"{name}.yaml")


def test_a_local_file_and_inline_yaml_come_first(shipped: Path) -> None:
    Path("s1.yaml").write_text("trainer: null\n")
    assert find_config("s1.yaml") == "s1.yaml"
    assert find_config("trainer: {max_steps: 2}") == "trainer: {max_steps: 2}"


def test_unknown_name_lists_the_shipped_ones_and_the_nearest(shipped: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe 's11': .* build/captions, s1; did you mean 's1'\?"):
        find_config("s11")
