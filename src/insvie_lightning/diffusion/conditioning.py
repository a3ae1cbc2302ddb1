"""What the network is shown in training: conditions dropped, noise on the source, samples that are not to be edited.

Dropping the two conditions lets one network learn all the branches that guidance needs. The null text and the null
video are zero tensors (released InsViE: the T5 output times zero, zero source latents).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from insvie_lightning.batch import NOISE_STRENGTHS, EditBatch
from insvie_lightning.errors import InputError


@dataclass(frozen=True)
class ConditionDropout:
    """Probabilities of training without a condition; the two draws of a sample are independent.

    Attributes:
        text: Share of samples without text: 0.1 in the released code, 0.05 in the paper (section 8).
        video: Share of samples without source: 0.05 in both; the release draws it once a micro-batch, we per sample.
    """

    text: float = 0.1
    video: float = 0.05

    def __post_init__(self) -> None:
        for name in ("text", "video"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"condition_dropout.{name} is {getattr(self, name)}; legal are values from 0 to 1")


CELLS = ("both", "no_text", "no_video", "none")
"""What a sample keeps: both conditions, the video only, the text only, nothing."""


def draw_cells(batch: int, rates: ConditionDropout, generator: torch.Generator) -> Tensor:
    """Draw the cell (index into CELLS) of each of B samples, on the generator's device."""
    uniform = torch.rand(2, batch, generator=generator, device=generator.device)
    return (uniform[0] < rates.text).long() + 2 * (uniform[1] < rates.video).long()


def count_cells(cells: Tensor) -> Tensor:
    """How many of B samples have each of CELLS; unlike `bincount`, without waiting for the device."""
    return (cells[:, None] == torch.arange(len(CELLS), device=cells.device)).sum(0)


def drop_conditions(source_latents: Tensor, prompt_embeds: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the source latents (B T C H W) and the prompt embeddings (B L D) of the samples whose cell says so."""
    keep_text = (cells % 2 == 0).reshape(-1, 1, 1)
    keep_video = (cells < 2).reshape(-1, 1, 1, 1, 1)
    return source_latents * keep_video, prompt_embeds * keep_text


SourceNoise = bool | Literal["latents"]
"""Noise on the source in training: True on its pixels, before they are encoded; `latents` on cached latents, of the
strength that noise on the pixels was measured to have there; False none."""


def add_source_noise(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on the source, as released: V_src + sigma N(0, I), sigma = exp(N(-3, 0.5^2)) per sample; B F C H W."""
    sigma = _draw_strengths(pixels, generator)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    return pixels + sigma.reshape(-1, 1, 1, 1, 1) * noise


def add_latent_noise(latents: Tensor, noise_shift: Tensor, generator: torch.Generator) -> Tensor:
    """What `add_source_noise` does to a source, done to its latents B T C h w without encoding anything.

    An approximation: mean and standard deviation of the shift in every channel are those that were measured, at the
    drawn strength; but it is normal, alike all over the clip, and independent between channels and places, where an
    encoder's depends on what is seen and spreads over neighbours. The posterior's variance stays that of the clean
    source.

    Args:
        latents: Of clean sources.
        noise_shift: As of `EditBatch`, B K 2 2 C.
        generator: Draws the strengths, the same as `add_source_noise` would, then the noise.
    """
    mean, std = noise_shift_at(noise_shift, _draw_strengths(latents, generator))
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    later = latents.shape[1] - 1
    mean, std = (torch.cat([m[:, :1], m[:, 1:].expand(-1, later, -1)], 1)[..., None, None] for m in (mean, std))
    return latents + mean + std * noise


def noise_shift_at(noise_shift: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the shift at strengths sigma, B: each B 2 C, of the first and of later frames.

    Straight lines between the measured strengths, from nothing at 0, the last one going on.
    """
    edges = (0.0, *NOISE_STRENGTHS)
    rises = [((sigma - low) / (high - low)).clamp(0, None if high == edges[-1] else 1) for low, high in pairwise(edges)]
    steps = noise_shift.diff(dim=1, prepend=torch.zeros_like(noise_shift[:, :1]))
    mean, std = torch.einsum("kb,bkmfc->mbfc", torch.stack(rises), steps)
    return mean, std


def _draw_strengths(like: Tensor, generator: torch.Generator) -> Tensor:
    return (-3 + 0.5 * torch.randn(len(like), generator=generator, device=like.device)).exp()


def draw_identity_pairs(batch: EditBatch, share: float, name: str) -> tuple[bool, ...]:
    """Choose the samples of a batch that are trained as identity pairs.

    The draw of a sample depends on its key and `name` only, so every rank and worker decides alike; the release draws
    from a generator that is seeded by rank. As released, image pairs are left out (the release knows the others by
    `pexel` or `openvid` in the file name); where origins are unknown, no sample is.

    Args:
        batch: B samples.
        share: Probability of a sample, 0 to 1.
        name: Of the draw: seed, stage and step.

    Returns:
        B choices.
    """
    origins = batch.origins or ("",) * len(batch)
    digests = (blake2b(f"{name}/{key}".encode(), digest_size=8).digest() for key in batch.keys)
    return tuple(
        origin in ("real", "static") and int.from_bytes(digest) < share * 2**64
        for digest, origin in zip(digests, origins, strict=True)
    )


def make_identity_pairs(batch: EditBatch, chosen: Sequence[bool]) -> EditBatch:
    """Let the chosen samples show their source as the edited clip, and ask for nothing.

    The sentence is empty, as released: it goes through the text encoder, and is not the null text of dropped samples.

    Raises:
        InputError: Edited clips come as pixels, and sources do not.
    """
    if batch.edited is not None and batch.source is None:
        raise InputError(
            f"identity pairs show the source's pixels, and sample {batch.keys[0]!r} comes with the edited clip's "
            "only; encode with --model.keep_source=true, too, or set --model.identity_pairs=0"
        )

    def take(edited: Tensor | None, source: Tensor | None) -> Tensor | None:
        if edited is None or source is None:
            return edited
        where = torch.tensor(chosen).to(edited.device, non_blocking=True).reshape(-1, *[1] * (edited.ndim - 1))
        return torch.where(where, source, edited)

    return replace(
        batch,
        instructions=tuple("" if one else text for one, text in zip(chosen, batch.instructions, strict=True)),
        edited=take(batch.edited, batch.source),
        edited_latents=take(batch.edited_latents, batch.source_latents),
        edited_log_variance=take(batch.edited_log_variance, batch.source_log_variance),
        edited_captions=tuple(
            source if one else edited
            for one, source, edited in zip(chosen, batch.source_captions, batch.edited_captions, strict=False)
        ),
    )
