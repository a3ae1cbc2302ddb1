"""What the pages in docs/ name exists."""

import re
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from lightning.pytorch import Trainer

from insvie_callbacks import Judge
from insvie_data_modules import Curriculum, Tgve, TgvePlus
from insvie_lightning import EditOptions
from insvie_lightning.commands.build import read_steps
from insvie_lightning.config import config_root, recipes
from insvie_lightning.editors import InsViE
from insvie_lightning.metrics.clip import OPENAI_CLIP, PICKSCORE, PICKSCORE_PROCESSOR
from insvie_lightning.metrics.ultra_edit import DINOV2
from insvie_lightning.metrics.viclip import VICLIP
from insvie_lightning.nets.execution import Execution
from insvie_lightning.nets.flops import decode_flops, transformer_flops
from insvie_lightning.report.published import EDITS, NOTES, published_rows
from insvie_lightning.shards.latents import latent_shape

DOCS = Path(__file__).parents[1] / "docs"
DIFFERENCES = (DOCS / "differences.md").read_text(encoding="utf-8")
ROOTS: dict[str, Any] = {"model": InsViE, "data": Curriculum, "trainer": Trainer}
T5_FLOPS = 2.11e12
"""Of T5 v1.1 XXL on 226 tokens."""
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


EVALUATION = (Path(__file__).parents[1] / "docs/evaluation.md").read_text(encoding="utf-8")


def test_what_the_page_of_scores_names_exists() -> None:
    named = set(re.findall(r"-c (\w+)", EVALUATION))
    assert {"tgve", "tgve_plus", "score", "metrics_free", "metrics_training", "paper", "released"} <= named
    assert named <= set(recipes())
    for name in re.findall(r"`data\.(\w+)`", EVALUATION):
        assert name in signature(Tgve).parameters and name in signature(TgvePlus).parameters
    for option in re.findall(r"`model\.edit_options\.(\w+)`", EVALUATION):
        assert option in {field.name for field in fields(EditOptions)}


def test_every_kind_of_score_has_its_line_on_the_page() -> None:
    for starts, _ in NOTES:
        assert all(f"`{start}" in EVALUATION for start in starts)
    assert all(f"`{column}`" in EVALUATION for name in EDITS for row in published_rows(name) for column in row.scores)


@pytest.mark.parametrize("name", [OPENAI_CLIP, PICKSCORE, PICKSCORE_PROCESSOR, VICLIP, DINOV2])
def test_all_weights_that_a_metric_fetches_are_on_the_page(name: str) -> None:
    assert name in EVALUATION.split("## Weights")[1]


def test_the_page_of_building_has_the_routes_and_steps_of_the_chain() -> None:
    page = (DOCS / "building.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", page, re.MULTILINE)
    routes = {route: re.findall(r"`(\w+)`", steps) for route, steps in rows}
    chain = config_root() / "build_insvie.yaml"
    assert routes == {route: list(read_steps(chain, route)) for route in ("real", "static", "pair", "sets")}
    for name in re.findall(r"`(build_\w+)`", page):
        assert name in recipes()


def test_what_the_page_of_performance_names_exists() -> None:
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--model\.execution\.(\w+)", page))
    assert len(options) >= 4 and options <= {field.name for field in fields(Execution)}
    assert set(re.findall(r"-c (\w+)", page)) <= set(recipes())
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", page))
    assert len(scripts) == 7 and all((DOCS.parent / script).exists() for script in scripts)


def test_the_page_of_performance_counts_as_the_formulas_do() -> None:
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    with torch.device("meta"):
        transformer, vae = CogVideoXTransformer3DModel(in_channels=32), AutoencoderKLCogVideoX()
    for column, frames in ((1, 25), (2, 49)):
        told = [
            float(number.replace(",", ""))
            for row in re.findall(r"^\| (?:training, l|one forward|decoding).*$", page, re.MULTILINE)
            for number in [row.split("|")[column + 1]]
        ]
        latents = latent_shape(frames, 480, 720)
        counts = [
            transformer_flops(transformer, latents, 128, training=True) + T5_FLOPS,
            transformer_flops(transformer, latents),
            decode_flops(vae, frames, 480, 720),
        ]
        assert told == [round(count / 1e12, 1) for count in counts]
