"""Encode once, train many times: the latents of every triplet as a shard set of their own."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.builders.builder import Builder, Built, Packed
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.errors import InputError
from insvie_lightning.nets.execution import to_channels_last
from insvie_lightning.nets.latents import (
    decode_latents,
    encode_posterior,
    measure_noise_shift,
    psnr_db,
    to_device_pixels,
)
from insvie_lightning.shards.drafts import EDITED, SOURCE
from insvie_lightning.shards.latents import LATENTS, LOG_VARIANCES, NOISE_SHIFT, SIDES, LatentRecipe, pack_latents
from insvie_lightning.video import fit_clip, legal_frames, sample_frames
from insvie_lightning.weights.components import hash_encoder, load_vae

SIDE_MULTIPLE = 16


class Unfaithful(InputError):
    """Latents do not decode back to their clip, so that nothing of this job can be trusted."""


class EncodeLatents(Builder[Triplet]):
    """Writes `KEY.latents.safetensors` (`source` and `edited`, T C h w) for every triplet, with its record.

    The whole frame is encoded, so that a training on them can cut another window out of it in every epoch, on the grid
    of latents (8 pixels). The latents are those of the posterior, times the scaling factor; the header of each file
    says how they were made, and a training that needs others refuses them. What noise on the source's pixels does to
    its latents is measured on a part of each clip and stored beside them (`measure_noise_shift`), for a training with
    `source_noise: latents`.

    A share of the samples is decoded back from what is stored, the first of each process among them.

    Args:
        output: Shard folder.
        base: Model whose autoencoder is used: a folder, a hub id, or `toy`.
        frames: Number of frames F = 1 + 4k, at the widest even stride from the first on: those to train with.
        size: Height and width in pixels, multiples of 16, that clips are brought to; None leaves each clip's own.
        resize: How: `cover` scales to cover and cuts the middle, `stretch` scales each axis.
        dtype: Of the stored numbers. bfloat16 keeps 8 bits, float32 takes twice the disk.
        posterior: What is stored of it. `moments`, mean and log-variance, are sampled at every step, as the released
            code and a training without a cache do; the `mean` alone takes half the disk.
        keep_source: Store the source video, too, for a training that adds noise to its pixels (`source_noise: true`)
            and encodes it anew each time. It must be stored as `source.mp4` in the input.
        keep_edited: Store the edited video, too, for a training whose LPIPS compares with it. It must be stored as
            `edited.mp4` in the input.
        measure_noise: Measure the effect of noise: 2.5 % more to encode at 25 x 576 x 1024, but 3.5 times as much where
            the part is the whole clip, as in the toy world.
        verified_share: Share of the samples (0 to 1) that is decoded back.
        min_psnr_db: Below it, between the decoded and the true clip, the job stops.
        shard_size: Samples a shard.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: `frames` or `size` is not legal.
    """

    takes = Triplet
    step = "latents"
    version = 3
    elsewhere = Builder.elsewhere | {"base", "verified_share", "min_psnr_db"}

    def __init__(
        self,
        output: Path,
        base: str = "zai-org/CogVideoX-2b",
        frames: int = 25,
        size: tuple[int, int] | None = None,
        resize: Literal["cover", "stretch"] = "cover",
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
        posterior: Literal["moments", "mean"] = "moments",
        keep_source: bool = False,
        keep_edited: bool = False,
        measure_noise: bool = True,
        verified_share: float = 0.01,
        min_psnr_db: float = 20.0,
        shard_size: int = 512,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if frames < 1 or frames != legal_frames(frames):
            near = max(1, (frames - 1) // 4 * 4 + 1)
            raise InputError(f"frames is {frames}; legal are 1, 5, 9, ... frames; did you mean {near}?")
        if size is not None:
            _check_sides(size, "size")
        self.base, self.frames, self.size, self.resize = base, frames, size, resize
        self.stored, self.posterior = dtype, posterior
        self.kept = tuple(name for name, kept in ((SOURCE, keep_source), (EDITED, keep_edited)) if kept)
        self.measure_noise, self.verified_share, self.min_psnr_db = measure_noise, verified_share, min_psnr_db
        self._verified = 0

    def configure_model(self) -> None:
        """Load the autoencoder."""
        if not hasattr(self, "vae"):
            self.vae = load_vae(self.base).eval().requires_grad_(False)
            to_channels_last(self.vae)
            self.encoder = hash_encoder(self.base)

    @property
    def settings(self) -> dict[str, Any]:
        """As of `Builder`, with the autoencoder told by its hash, and the precision that it works in."""
        self.configure_model()
        return {**super().settings, "encoder": self.encoder, "precision": str(self.trainer.precision)}

    def make(self, drafts: Sequence[Triplet]) -> list[Built]:
        """The latents of each triplet.

        Raises:
            Unfaithful: One of them does not decode back.
        """
        return [self._encode(triplet) for triplet in drafts]

    def _encode(self, triplet: Triplet) -> Packed:
        source, edited = (self._fit(clip) for clip in (triplet.source, triplet.edited))
        if source.frames.shape != edited.frames.shape:
            shapes = f"{source.frames.shape} and {edited.frames.shape}"
            raise InputError(f"source and edited clip differ in shape F 3 H W: {shapes}")
        _check_sides(source.size, f"the size of {triplet.key!r}")
        recipe = LatentRecipe(self.encoder, self.frames, self.size, self.resize, self.stored, self.posterior)
        pixels = to_device_pixels(torch.from_numpy(np.stack([source.frames, edited.frames])).to(self.device))
        moments = [moment.to(getattr(torch, self.stored)) for moment in encode_posterior(self.vae, pixels)]
        if self._is_verified(triplet.key):
            self._verify(triplet.key, moments[0], pixels)
        told = {**triplet.lineage, self.step: {"base": self.base}}
        names = (SIDES, LOG_VARIANCES) if self.posterior == "moments" else (SIDES,)
        latents = {
            name: one for pair, both in zip(names, moments, strict=False) for name, one in zip(pair, both, strict=True)
        }
        if self.measure_noise:
            generator = torch.Generator().manual_seed(seed_of(self.step, triplet.key))
            latents[NOISE_SHIFT] = measure_noise_shift(self.vae, pixels[0], generator)
        data = pack_latents(latents, recipe)
        return Packed(replace(triplet, source=source, edited=edited, lineage=told), {LATENTS: data}, self.kept)

    def _fit(self, clip: Clip) -> Clip:
        clip = sample_frames(clip, self.frames)
        return clip if self.size is None else fit_clip(clip, self.size, self.resize)

    def _is_verified(self, key: str) -> bool:
        drawn = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) / 2**64
        return self._verified == 0 or drawn < self.verified_share

    def _verify(self, key: str, latents: Tensor, pixels: Tensor) -> None:
        self._verified += 1
        found = float(psnr_db(decode_latents(self.vae, latents.float()), pixels).min())
        if not found >= self.min_psnr_db:
            raise Unfaithful(
                f"the latents of {key!r} decode back at {found:.1f} dB, and at least {self.min_psnr_db:g} are needed: "
                f"{self.base} does not fit these clips, or --trainer.precision is too low; or lower --model.min_psnr_db"
            )


def _check_sides(size: tuple[int, int], name: str) -> None:
    if any(side <= 0 or side % SIDE_MULTIPLE for side in size):
        raise InputError(
            f"{name} is {size[0]}x{size[1]}; height and width are multiples of {SIDE_MULTIPLE}: give --model.size"
        )
