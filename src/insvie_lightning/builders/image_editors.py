"""Image editors that make several candidates of one edit: CosXL-Edit and InstructPix2Pix, through diffusers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.nets.hub import model_folder
from insvie_lightning.nets.sharing import place


class ImageEditor(Protocol):
    """Who edits frames for `BuildFirstFrames`: `CosXLEdit`, `InstructPix2Pix`, `editors.frames.VideoEditor`, ..."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name as `model`, and what else changes its edits; JSON types."""
        ...

    def load(self, device: torch.device) -> None:
        """Load the model, or move it; nothing happens when it is there.

        Raises:
            InputError: There is none.
        """
        ...

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: tuple[float, ...], seed: int) -> np.ndarray:
        """Edit a frame once for each scale, from the same noise.

        Args:
            frame: 3 H W, uint8; sides as `BuildFirstFrames` makes them, multiples of 32.
            instruction: What to change.
            guidance_scales: Of the text, from 1, not all of them 1.
            seed: Of the noise.

        Returns:
            N 3 H W, uint8, in the order of the scales.
        """
        ...


class CosXLEdit:
    """CosXL-Edit, the paper's editor (3.1): SDXL with a cosine-continuous EDM schedule, which follows instructions.

    Sampling is as on the model card and in diffusers' documentation: Euler steps of EDM over noise levels from 120 to
    0.002, evenly spread on a logarithmic scale.

    Args:
        model: A hub id, a folder with the released `cosxl_edit.safetensors` or in diffusers' layout, or that file.
        base: Folder or hub id of SDXL, whose settings and tokenizers the released file needs; its weights are not read.
        image_guidance_scale: How closely the candidates follow the frame, from 1.
        num_inference_steps: Euler steps.
    """

    def __init__(
        self,
        model: str = "stabilityai/cosxl",
        base: str = "stabilityai/stable-diffusion-xl-base-1.0",
        image_guidance_scale: float = 1.5,
        num_inference_steps: int = 20,
    ) -> None:
        self.model, self.base = model, base
        self.image_guidance_scale, self.num_inference_steps = _checked(image_guidance_scale, num_inference_steps)
        self._pipeline: Any = None

    @property
    def identity(self) -> dict[str, Any]:
        """See `ImageEditor`."""
        return _identity(self, self.model, self.image_guidance_scale, self.num_inference_steps)

    def load(self, device: torch.device) -> None:
        """See `ImageEditor`."""
        if self._pipeline is None:
            from diffusers import EDMEulerScheduler, StableDiffusionXLInstructPix2PixPipeline

            # Neither is stored with the model: that the frame's latents are scaled, and that no watermark is wanted.
            settings = {"is_cosxl_edit": True, "add_watermarker": False, "torch_dtype": _dtype(device)}
            released = _released_file(self.model)
            if released is None:
                self._pipeline = _from_folder(StableDiffusionXLInstructPix2PixPipeline, self.model, **settings)
            else:
                config = model_folder(self.base, ("*.json", "*/*.json", "*/*.txt"), "name the folder as `base`")
                with _named(self.model, StableDiffusionXLInstructPix2PixPipeline):
                    self._pipeline = StableDiffusionXLInstructPix2PixPipeline.from_single_file(
                        str(released), config=str(config), num_in_channels=8, **settings
                    )
            self._pipeline.scheduler = EDMEulerScheduler(
                sigma_min=0.002,
                sigma_max=120.0,
                sigma_data=1.0,
                prediction_type="v_prediction",
                sigma_schedule="exponential",
            )
        _place(self._pipeline, device)

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: tuple[float, ...], seed: int) -> np.ndarray:
        """See `ImageEditor`; all candidates in one batch."""
        height, width = frame.shape[1:]
        settings = (self.image_guidance_scale, self.num_inference_steps)
        return _edit(self._pipeline, frame, instruction, guidance_scales, seed, *settings, height=height, width=width)


class InstructPix2Pix:
    """InstructPix2Pix, Stable Diffusion 1.5 that follows instructions; made for 512 pixels.

    Args:
        model: A hub id, or a folder in diffusers' layout.
        image_guidance_scale: How closely the candidates follow the frame, from 1.
        num_inference_steps: Steps of the model's own scheduler.
    """

    def __init__(
        self,
        model: str = "timbrooks/instruct-pix2pix",
        image_guidance_scale: float = 1.5,
        num_inference_steps: int = 50,
    ) -> None:
        self.model = model
        self.image_guidance_scale, self.num_inference_steps = _checked(image_guidance_scale, num_inference_steps)
        self._pipeline: Any = None

    @property
    def identity(self) -> dict[str, Any]:
        """See `ImageEditor`."""
        return _identity(self, self.model, self.image_guidance_scale, self.num_inference_steps)

    def load(self, device: torch.device) -> None:
        """See `ImageEditor`."""
        if self._pipeline is None:
            from diffusers import StableDiffusionInstructPix2PixPipeline

            self._pipeline = _from_folder(
                StableDiffusionInstructPix2PixPipeline, self.model, torch_dtype=_dtype(device)
            )
        _place(self._pipeline, device)

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: tuple[float, ...], seed: int) -> np.ndarray:
        """See `ImageEditor`; all candidates in one batch."""
        settings = (self.image_guidance_scale, self.num_inference_steps)
        return _edit(self._pipeline, frame, instruction, guidance_scales, seed, *settings)


@dataclass(frozen=True, slots=True)
class _Scales:
    """A guidance scale for each sample of a batch, where a pipeline expects one number.

    A pipeline asks whether the number is above 1, to know if there is guidance at all, and multiplies a difference of
    predictions B C h w by it. So all candidates share every call of the U-Net: as many calls as steps, each on three
    branches of each candidate.
    """

    values: tuple[float, ...]

    def __gt__(self, other: float) -> bool:
        return max(self.values) > other

    def __mul__(self, difference: Tensor) -> Tensor:
        return difference * difference.new_tensor(self.values).view(-1, 1, 1, 1)


def _edit(
    pipeline: Any,
    frame: np.ndarray,
    instruction: str,
    guidance_scales: tuple[float, ...],
    seed: int,
    image_guidance_scale: float,
    num_inference_steps: int,
    **size: int,
) -> np.ndarray:
    count = len(guidance_scales)
    made = pipeline(
        prompt=instruction,
        image=[Image.fromarray(frame.transpose(1, 2, 0))] * count,
        num_images_per_prompt=count,
        guidance_scale=_Scales(guidance_scales),
        image_guidance_scale=image_guidance_scale,
        num_inference_steps=num_inference_steps,
        generator=[torch.Generator().manual_seed(seed) for _ in range(count)],
        output_type="np",
        **size,
    ).images
    return (made.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)


def _checked(image_guidance_scale: float, num_inference_steps: int) -> tuple[float, int]:
    if image_guidance_scale < 1 or num_inference_steps < 1:
        raise InputError(
            f"image_guidance_scale is {image_guidance_scale}, num_inference_steps {num_inference_steps}; "
            "both are at least 1"
        )
    return image_guidance_scale, num_inference_steps


def _identity(editor: ImageEditor, model: str, image_guidance_scale: float, num_inference_steps: int) -> dict[str, Any]:
    return {
        "editor": type(editor).__name__,
        "model": model,
        "image_guidance_scale": image_guidance_scale,
        "num_inference_steps": num_inference_steps,
    }


def _dtype(device: torch.device) -> torch.dtype:
    """What these models are used in; diffusers itself takes their autoencoder in float32 where it would overflow."""
    return torch.float32 if device.type == "cpu" else torch.float16


def _released_file(model: str) -> Path | None:
    """The file of weights as it was released, where `model` is it or has it; None for diffusers' layout."""
    if model.endswith(".safetensors"):
        if not Path(model).is_file():
            raise InputError(f"{model}: no such file")
        return Path(model)
    file = _folder(model) / "cosxl_edit.safetensors"
    return file if file.is_file() else None


def _from_folder(kind: Any, model: str, **settings: Any) -> Any:
    with _named(model, kind):
        return kind.from_pretrained(_folder(model), use_safetensors=True, **settings)


@contextmanager
def _named(model: str, kind: Any) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{model} cannot be loaded as {kind.__name__} of diffusers: {first_line(error)}") from error


def _folder(model: str) -> Path:
    files = ("*.json", "*/*.json", "*/*.txt", "*/*.safetensors", "cosxl_edit.safetensors")
    return model_folder(model, files, "name the folder as the editor's `model`")


def _place(pipeline: Any, device: torch.device) -> None:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.enable_slicing()
    place(pipeline.unet, device)  # the other parts are small
    pipeline.to(device)
