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


def test_inline_yaml_may_be_longer_than_any_path() -> None:
    text = f"trainer: {{default_root_dir: {'x' * 5000}}}"
    assert find_config(text) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\xff\xfea", "is no readable recipe: 'utf-8' codec"),
        (b"[" * 3000, "nested too deeply"),
        (b"a: 1" + b"0" * 5000, "has a number that is none"),
        (b"- a\n", "holds no `key: value` at its top"),
        (b"#" * 1_000_001, "more than 1,000,000 characters"),
        (b"a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + b"".join(
            b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("k"))
        ), "with its aliases it has more than 100,000 values"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_one_sentence(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "x.yaml").write_bytes(text)
    with pytest.raises(InputError, match=sentence):
        find_config(str(tmp_path / "x.yaml"))


def test_aliases_are_legal(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: *a\n")
    assert find_config(str(tmp_path / "x.yaml"))
