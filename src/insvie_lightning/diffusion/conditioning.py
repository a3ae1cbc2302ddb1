"""Dropping the two conditions, so that one network learns all the branches that guidance needs.

The null text and the null video are zero tensors (released InsViE: the T5 output times zero, zero source latents).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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


def drop_conditions(source_latents: Tensor, prompt_embeds: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Zero the source latents (B T C H W) and the prompt embeddings (B L D) of the samples whose cell says so."""
    keep_text = (cells % 2 == 0).reshape(-1, 1, 1)
    keep_video = (cells < 2).reshape(-1, 1, 1, 1, 1)
    return source_latents * keep_video, prompt_embeds * keep_text


def add_source_noise(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on the source, as released: V_src + sigma N(0, I), sigma = exp(N(-3, 0.5^2)) per sample; B F C H W."""
    device = pixels.device
    log_sigma = -3 + 0.5 * torch.randn(len(pixels), generator=generator, device=device)
    noise = torch.randn(pixels.shape, generator=generator, device=device)
    return pixels + log_sigma.exp().reshape(-1, 1, 1, 1, 1) * noise
