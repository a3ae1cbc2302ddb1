"""Stable Video Diffusion out of diffusers' parts, as functions of pixels and latents.

diffusers' pipeline generates from random noise only; editing a video needs its network between two noise levels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from insvie_lightning.errors import InputError, first_line, nearest
from insvie_lightning.nets.hub import absent, model_folder
from insvie_lightning.nets.latents import to_device_pixels, to_uint8
from insvie_lightning.nets.sharing import place

SVD = "stabilityai/stable-video-diffusion-img2vid-xt"
"""Made for 25 frames of 576 x 1024."""
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FILES = ["*/*.json", "*/*.fp16.safetensors", "model_index.json"]
_ADVICE = "give the folder as --model.base"


@dataclass(frozen=True, slots=True)
class Condition:
    """What the network is told beside the noisy latents of a clip.

    Attributes:
        embedding: 1 1 D, of the first frame by CLIP.
        latents: 1 C h w, of the first frame by the autoencoder; not scaled.
        time_ids: 1 3: frames per second less 1, motion bucket, strength of the noise on the first frame.
    """

    embedding: Tensor
    latents: Tensor
    time_ids: Tensor


class StableVideo:
    """A Stable Video Diffusion model on a device.

    Args:
        pipeline: diffusers' `StableVideoDiffusionPipeline`; its parts are used, not its call.

    Raises:
        InputError: The scheduler's network form is not `v_prediction`.
    """

    def __init__(self, pipeline: Any) -> None:
        form = pipeline.scheduler.config.prediction_type
        if form != "v_prediction":
            raise InputError(f"the scheduler's prediction_type is {form!r}; Stable Video Diffusion has 'v_prediction'")
        self.pipeline, self.device, self._placed = pipeline, torch.device("cpu"), False

    @classmethod
    def load(cls, base: str, dtype: Precision) -> "StableVideo":
        """Load a model; of a hub's, the half-precision files.

        Args:
            base: A folder in diffusers' layout, or a hub id.
            dtype: Of the weights in memory.

        Raises:
            InputError: There is no such model, or the folder does not hold one.
        """
        from diffusers import StableVideoDiffusionPipeline

        if dtype not in PRECISIONS:
            raise InputError(f"dtype is {dtype!r}; legal are {', '.join(PRECISIONS)}{nearest(dtype, PRECISIONS)}")
        folder = model_folder(base, _FILES, _ADVICE)
        half = any(folder.glob("unet/*.fp16.safetensors"))
        try:
            pipeline = StableVideoDiffusionPipeline.from_pretrained(
                folder, torch_dtype=PRECISIONS[dtype], variant="fp16" if half else None, use_safetensors=True
            )
        except OSError as error:
            raise absent(base, _ADVICE) from error
        except Exception as error:  # the libraries have errors of their own for a damaged file
            raise InputError(f"{folder} holds no Stable Video Diffusion: {first_line(error)}") from error
        return cls(pipeline)

    def to(self, device: torch.device, low_memory: bool = False) -> "StableVideo":
        """Move to a device, once; `low_memory` keeps only the network at work there, and all of it on every rank."""
        if device != self.device or not self._placed:
            if low_memory:
                self.pipeline.enable_model_cpu_offload(device=device)
            else:
                place(self.pipeline.unet, device)
                place(self.pipeline.image_encoder, device)
                self.pipeline.to(device)
            self.device, self._placed = device, True
        return self

    @property
    def factor(self) -> int:
        """Side of a latent in px; heights and widths are multiples of it."""
        return self.pipeline.vae_scale_factor

    def schedule(self, num_inference_steps: int) -> tuple[list[float], Tensor]:
        """The n + 1 noise levels of n steps, from the highest to 0, and what the network is told of the first n."""
        self.pipeline.scheduler.set_timesteps(num_inference_steps)
        return self.pipeline.scheduler.sigmas.tolist(), self.pipeline.scheduler.timesteps.to(self.device)

    @torch.no_grad()
    def encode(self, frames: Tensor, chunk: int) -> Tensor:
        """Scaled latents 1 T C h w, float32, of a clip T 3 H W (uint8), by `chunk` frames; the posterior's mode."""
        parts = [self._encode(to_device_pixels(part.to(self.device))) for part in frames.split(chunk)]
        return torch.cat(parts)[None] * self.pipeline.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int) -> Tensor:
        """A clip T 3 H W, uint8 on the CPU, of scaled latents 1 T C h w; the decoder sees `chunk` frames at once."""
        vae = self.pipeline.vae
        parts = (latents[0] / vae.config.scaling_factor).to(vae.dtype).split(chunk)
        return torch.cat([to_uint8(vae.decode(part, num_frames=len(part)).sample).cpu() for part in parts])

    @torch.no_grad()
    def condition(
        self, first: Tensor, noise: Tensor, fps: int, motion_bucket_id: int, noise_aug_strength: float
    ) -> Condition:
        """What a first frame tells the network.

        Args:
            first: 3 H W, uint8.
            noise: Standard normal, 3 H W.
            fps: Frames per second that the clip is to look like.
            motion_bucket_id: From 0, hardly any motion, to 255.
            noise_aug_strength: Standard deviation of the noise on the frame, in pixels of [-1, 1]; the more, the less
                does the clip cling to it.
        """
        pixels = to_device_pixels(first.to(self.device))[None]
        processor, encoder = self.pipeline.feature_extractor, self.pipeline.image_encoder
        side = encoder.config.image_size
        small = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(-1, 1) / 2 + 0.5
        mean, std = (
            torch.tensor(value, device=self.device)[:, None, None]
            for value in (processor.image_mean, processor.image_std)
        )
        embedding = encoder(((small - mean) / std).to(encoder.dtype)).image_embeds[:, None]
        latents = self._encode(pixels + noise_aug_strength * noise.to(self.device))
        told = [fps - 1, motion_bucket_id, noise_aug_strength]  # trained on fps - 1
        return Condition(embedding, latents, torch.tensor([told], dtype=embedding.dtype, device=self.device))

    def network(
        self,
        condition: Condition,
        num_inference_steps: int,
        min_guidance_scale: float = 1,
        max_guidance_scale: float = 1,
    ) -> Callable[[Tensor, int], Tensor]:
        """The network under a condition: (latents 1 T C h w at the level of a step, not scaled; step) -> F, float32.

        Args:
            condition: Of the first frame.
            num_inference_steps: Of the schedule that steps are numbered in.
            min_guidance_scale: Of the first frame; scales rise evenly to the last frame's.
            max_guidance_scale: Of the last frame; up to 1 the network is evaluated without the unconditional branch.
        """
        unet = self.pipeline.unet
        sigmas, told = self.schedule(num_inference_steps)
        guided = max_guidance_scale > 1
        embedding, time_ids = condition.embedding, condition.time_ids
        if guided:
            embedding, time_ids = torch.cat([torch.zeros_like(embedding), embedding]), torch.cat([time_ids, time_ids])

        @torch.no_grad()
        def evaluate(latents: Tensor, step: int) -> Tensor:
            first = condition.latents[:, None].expand(-1, latents.shape[1], -1, -1, -1)
            seen = torch.cat([latents / (sigmas[step] ** 2 + 1) ** 0.5, first.to(latents.dtype)], 2)
            if guided:
                without = torch.cat([seen[:, :, : latents.shape[2]], torch.zeros_like(first).to(latents.dtype)], 2)
                seen = torch.cat([without, seen])
            output = unet(
                seen.to(unet.dtype), told[step], encoder_hidden_states=embedding, added_time_ids=time_ids
            ).sample.float()
            if not guided:
                return output
            scales = torch.linspace(min_guidance_scale, max_guidance_scale, latents.shape[1], device=self.device)
            return output[:1] + scales[:, None, None, None] * (output[1:] - output[:1])

        return evaluate

    def _encode(self, pixels: Tensor) -> Tensor:
        """Latents of pixels B 3 H W in [-1, 1], float32, not scaled."""
        vae = self.pipeline.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:  # its encoder overflows in float16
            latents = vae.to(torch.float32).encode(pixels.float()).latent_dist.mode()
            vae.to(torch.float16)
            return latents
        return vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float()


def check_sampling(
    num_inference_steps: int, min_guidance_scale: float, max_guidance_scale: float, fps: int, motion_bucket_id: int
) -> None:
    """Refuse what the network cannot be asked for.

    Raises:
        InputError: A number is not legal.
    """
    if num_inference_steps < 1 or fps < 1 or not 0 <= motion_bucket_id <= 255:
        raise InputError(
            f"num_inference_steps is {num_inference_steps}, fps {fps}, motion_bucket_id {motion_bucket_id}; legal are "
            "1 or more, 1 or more, and 0 to 255"
        )
    if not 0 <= min_guidance_scale <= max_guidance_scale < math.inf:
        raise InputError(
            f"min_guidance_scale is {min_guidance_scale}, max_guidance_scale {max_guidance_scale}; legal are finite "
            "values from 0, and min up to max"
        )
