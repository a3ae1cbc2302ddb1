"""What the pages in docs/ name exists."""

import re
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from insvie_callbacks import Judge
from insvie_data_modules.curriculum import Curriculum
from insvie_lightning.config import recipes
from insvie_lightning.editors import InsViE

DOCS = Path(__file__).parents[1] / "docs"
DIFFERENCES = (DOCS / "differences.md").read_text(encoding="utf-8")
ROOTS: dict[str, Any] = {"model": InsViE, "data": Curriculum, "trainer": Trainer}
KEYS = sorted(set(re.findall(r"`((?:model|data|trainer)(?:\.\w+)+)`", DIFFERENCES)))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_on_the_page_of_differences_is_an_argument(key: str) -> None:
    root, name, *rest = key.split(".")
    parameter = signature(ROOTS[root]).parameters[name]
    if rest:
        assert is_dataclass(parameter.default)
        assert rest[0] in {field.name for field in fields(parameter.default)}


def test_every_training_option_with_two_values_is_on_the_page() -> None:
    """What the two overlays set is what differs."""
    assert len(KEYS) > 25
    for name in ("paper", "released"):
        assert name in recipes() and f"-c {name}" in DIFFERENCES
    for key in ("frame_weight_mix", "source_noise", "identity_pairs", "condition_dropout.text", "sampler",
                "guidance.form", "guidance.schedule", "num_inference_steps"):  # fmt: skip
        assert f"model.{key}" in KEYS


def test_the_page_of_judges_has_every_option_and_its_default() -> None:
    options = signature(Judge).parameters
    text = (DOCS / "judges.md").read_text(encoding="utf-8").split("## Options")[1].split("##")[0]
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| `")]
    assert sorted(name for names, _ in rows for name in re.findall(r"`(\w+)`", names)) == sorted(options)
    for names, default in rows:
        for name in re.findall(r"`(\w+)`", names):
            value = options[name].default
            assert value is None or (f"{value:g}" if isinstance(value, float) else str(value)) in default
