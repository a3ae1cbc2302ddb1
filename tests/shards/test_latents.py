"""Files of cached latents: what they hold, and which runs they are refused to."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from insvie_lightning.errors import InputError
from insvie_lightning.shards.latents import (
    LatentRecipe,
    check_latents,
    latent_shape,
    pack_latents,
    read_recipe,
    unpack_latents,
)

RECIPE = LatentRecipe("abc", 9, (64, 96), "cover", "float32")
LATENTS = {side: torch.randn(3, 16, 8, 12, generator=torch.Generator().manual_seed(0)) for side in ("source", "edited")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [(64, 96), None])
def test_latents_and_recipe_come_back(dtype: str, size: tuple[int, int] | None) -> None:
    recipe = replace(RECIPE, dtype=dtype, size=size)
    data = pack_latents(LATENTS, recipe)
    assert read_recipe(data) == recipe
    for side, found in unpack_latents(data).items():
        assert found.dtype == torch.float32
        assert torch.equal(found, LATENTS[side].to(getattr(torch, dtype)).float())


def test_moments_come_back_and_the_effect_of_noise_keeps_its_digits() -> None:
    recipe = replace(RECIPE, dtype="bfloat16", posterior="moments")
    stored = {**LATENTS, **{f"{side}_log_variance": value - 8 for side, value in LATENTS.items()}}
    stored |= {"noise_shift": torch.rand(4, 2, 2, 16, generator=torch.Generator().manual_seed(1))}
    data = pack_latents(stored, recipe)
    found = unpack_latents(data)
    assert read_recipe(data) == recipe and found.keys() == stored.keys()
    assert torch.equal(found["noise_shift"], stored.pop("noise_shift"))
    assert all(torch.equal(found[name], value.bfloat16().float()) for name, value in stored.items())
    del stored["edited_log_variance"]
    with pytest.raises(InputError, match=r"lacks one of its tensors: .*edited_log_variance"):
        unpack_latents(pack_latents(stored, recipe))


def test_a_file_from_before_moments_is_of_means() -> None:
    told = json.dumps({name: value for name, value in asdict(RECIPE).items() if name != "posterior"})
    assert read_recipe(save(LATENTS, metadata={"recipe": told})) == RECIPE and RECIPE.posterior == "mean"


@pytest.mark.parametrize("data", [b"", b"no latents at all", save({"source": torch.zeros(2)})])
def test_a_broken_file_is_one_sentence(data: bytes) -> None:
    assert read_recipe(data) is None
    with pytest.raises(InputError, match="is broken or lacks one of its tensors"):
        unpack_latents(data)


@pytest.mark.parametrize(
    ("run", "crops"),
    [
        (("abc", 9, (64, 96)), False),
        (("abc", 9, (64, 96)), True),
        (("abc", 9, (32, 48)), True),
        ((None, None, None), False),
    ],
)
def test_latents_made_for_a_run_are_taken(run: Any, crops: bool) -> None:
    check_latents(pack_latents(LATENTS, RECIPE), Path("x"), *run, crops)


@pytest.mark.parametrize(
    ("run", "crops", "said"),
    [
        (("other", 9, (64, 96)), True, "in x were made by the autoencoder abc, the model has other; encode again"),
        (("abc", 5, (64, 96)), True, "are of 9 frames, the run is of 5; set --data.frames 9, or encode again"),
        (("abc", 9, (64, 128)), True, "are of 64x96 pixels, the run is of 64x128; legal are windows of it"),
        (("abc", 9, (60, 96)), True, "the run is of 60x96; legal are windows of it whose sides are multiples of 8"),
        (("abc", 9, (32, 48)), False, "the run is of 32x48; legal are that size, or --data.resize crop"),
    ],
)
def test_stale_latents_are_one_sentence(run: Any, crops: bool, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_latents(pack_latents(LATENTS, RECIPE), Path("x"), *run, crops)


def test_latents_that_do_not_say_how_they_were_made_are_refused() -> None:
    with pytest.raises(InputError, match="in x do not say how they were made; encode again"):
        check_latents(save(LATENTS), Path("x"), None, None, None, False)


def test_the_shape_of_latents() -> None:
    assert latent_shape(25, 480, 720) == (7, 60, 90)
    assert latent_shape(1, 64, 96) == (1, 8, 12)
