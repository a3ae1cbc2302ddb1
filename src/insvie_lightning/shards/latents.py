"""Cached latents in shards: what a file of them holds, how they were made, and whether a run may be fed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insvie_lightning.batch import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from insvie_lightning.errors import InputError

if TYPE_CHECKING:
    import torch

LATENTS = "latents.safetensors"
SIDES = ("source", "edited")
LOG_VARIANCES = ("source_log_variance", "edited_log_variance")
NOISE_SHIFT = "noise_shift"
"""Names of the tensors of a file: latents, with moments their log-variances, and the effect of noise on the source."""
_AGAIN = "encode again into another folder (`insvie predict -c build_latents`)"


@dataclass(frozen=True, slots=True)
class LatentRecipe:
    """How the latents of a sample were made; it lies in the header of its file.

    Attributes:
        encoder: Which autoencoder (`weights.components.hash_encoder`).
        frames: Number of frames that were encoded, taken at the widest even stride from the first on.
        size: Height and width in pixels that clips were brought to; None leaves each clip's own.
        resize: How: `cover` or `stretch`.
        dtype: Of the stored numbers.
        posterior: What is stored of it: its `mean`, or its `moments`, mean and log-variance.
    """

    encoder: str
    frames: int
    size: tuple[int, int] | None
    resize: str
    dtype: str
    posterior: str = "mean"


def pack_latents(latents: Mapping[str, torch.Tensor], recipe: LatentRecipe) -> bytes:
    """The file of a sample, in the recipe's dtype but for the effect of noise, which is float32.

    Args:
        latents: T C h w of `source` and `edited`; for `moments`, their log-variances, T C h w, too; and the effect of
            noise where it was measured (see `EditBatch.noise_shift`).
        recipe: How they were made.
    """
    import torch
    from safetensors.torch import save

    kind = getattr(torch, recipe.dtype)
    tensors = {
        name: value.to("cpu", torch.float32 if name == NOISE_SHIFT else kind).contiguous()
        for name, value in latents.items()
    }
    return save(tensors, metadata={"recipe": json.dumps(asdict(recipe))})


def unpack_latents(data: bytes) -> dict[str, torch.Tensor]:
    """Latents T C h w of `source` and `edited`, and what else is stored of them (see `pack_latents`), float32.

    Raises:
        InputError: The file is broken, or lacks one of them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        latents, recipe = load(data), read_recipe(data)
        moments = recipe is not None and recipe.posterior == "moments"
        names = SIDES + LOG_VARIANCES * moments + (NOISE_SHIFT,) * (NOISE_SHIFT in latents)
        return {name: latents[name].float() for name in names}
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{LATENTS} is broken or lacks one of its tensors: {error}") from None


def read_recipe(data: bytes) -> LatentRecipe | None:
    """How the latents in a file were made; None where it does not say, or is broken."""
    try:
        header: Any = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        told = json.loads(header["__metadata__"]["recipe"])
        return LatentRecipe(**{**told, "size": told["size"] and tuple(told["size"])})
    except (ValueError, KeyError, TypeError):
        return None


def check_latents(
    data: bytes,
    folder: Path,
    encoder: str | None,
    frames: int | None,
    size: tuple[int, int] | None,
    crops: bool,
    noisy: bool = False,
) -> None:
    """Refuse to feed a run from latents that were not made for it.

    Args:
        data: The file of any sample; a folder is made by one recipe.
        folder: Where it lies.
        encoder: The autoencoder of the run's model; None takes any.
        frames: Number of frames of the run; None takes any.
        size: Height and width in pixels of the run; None takes any.
        crops: Whether the run cuts windows of `size`, so that the latents may be larger.
        noisy: Whether the run adds the measured effect of noise to them.

    Raises:
        InputError: They are stale: of another autoencoder, number of frames or size, or of nobody knows what; or the
            effect of noise was not measured.
    """
    recipe = read_recipe(data)
    if recipe is None:
        raise InputError(f"the latents in {folder} do not say how they were made; {_AGAIN}")
    if encoder is not None and recipe.encoder != encoder:
        raise InputError(
            f"the latents in {folder} were made by the autoencoder {recipe.encoder}, the model has {encoder}; {_AGAIN} "
            "with --model.base of the training, or train on the videos"
        )
    if frames is not None and recipe.frames != frames:
        raise InputError(
            f"the latents in {folder} are of {recipe.frames} frames, the run is of {frames}; set --data.frames "
            f"{recipe.frames}, or {_AGAIN} with --model.frames {frames}"
        )
    latents = unpack_latents(data)
    if noisy and NOISE_SHIFT not in latents:
        raise InputError(
            f"the effect of noise on the latents in {folder} was not measured; {_AGAIN}, or set --model.source_noise "
            "false"
        )
    if size is None:
        return
    height, width = (PIXELS_PER_LATENT * side for side in latents["edited"].shape[-2:])
    fits = size[0] <= height and size[1] <= width and not any(side % PIXELS_PER_LATENT for side in size)
    if not (fits if crops else size == (height, width)):
        legal = "windows of it whose sides are multiples of 8" if crops else "that size, or --data.resize crop"
        raise InputError(
            f"the latents in {folder} are of {height}x{width} pixels, the run is of {size[0]}x{size[1]}; legal are "
            f"{legal}; {_AGAIN} with --model.size [{size[0]},{size[1]}]"
        )


def latent_shape(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """T, h and w of the latents of a clip of F = 1 + 4k frames of H x W pixels."""
    return (frames - 1) // FRAMES_PER_LATENT + 1, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT
