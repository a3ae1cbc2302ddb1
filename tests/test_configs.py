import re
import shlex
from pathlib import Path

import pytest

from insvie_lightning.cli import LIGHTNING_VERBS
from insvie_lightning.config import config_root, header, recipes

CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]


def command(name: str) -> list[str]:
    """Return the options of the first Lightning command in a recipe's header."""
    text = (config_root() / f"{name}.yaml").read_text(encoding="utf-8")
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    one_line = re.sub(r"\\\n#\s*", " ", comment)
    found = re.search(rf"insvie (?:{'|'.join(LIGHTNING_VERBS)}) (.*)", one_line)
    assert found, f"the header of {name} gives no command"
    return shlex.split(re.sub(r"--ckpt_path[= ]\S+", "", found[1]))


@pytest.mark.parametrize("name", [name for name, opening in recipes().items() if not opening.startswith("Chain:")])
def test_recipe_parses_and_builds_what_it_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from insvie_lightning.commands.lightning_cli import InsvieCLI

    opening = header(config_root() / f"{name}.yaml")
    assert opening, "a recipe opens with a header comment"
    args = [*command("s1"), "-c", name] if opening.startswith("Overlay:") else command(name)
    monkeypatch.chdir(tmp_path)
    built = InsvieCLI([*args, *CPU], run=False)
    assert built.model is not None
    assert built.datamodule is not None


def test_fast_changes_how_networks_run_and_where_noise_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from insvie_lightning.commands.lightning_cli import InsvieCLI
    from insvie_lightning.nets.execution import Execution

    monkeypatch.chdir(tmp_path)
    model = InsvieCLI([*command("s1"), "-c", "fast", *CPU], run=False).model
    assert model.execution == Execution(compile=True, frozen_dtype="bfloat16") and model.source_noise == "latents"
