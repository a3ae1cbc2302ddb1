"""Edit with a trained video editor where data is built: single frames, as image editors do, and clips alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from insvie_lightning.batch import Clip
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors.editor import Editor


class VideoEditor:
    """A trained video editor that edits a frame as a video in which nothing moves, and clips in the same way.

    It is an `ImageEditor` and a `ClipEditor` of the builders, for editors that were trained on few frames, such as
    those of the toy world. Of a frame the first one of its edit is taken; candidates are made one after another.

    Args:
        weights: The `weights` folder of a run.
        video_guidance_scale: How closely the candidates follow the frame, from 0.
        num_inference_steps: Sampler steps; None is the editor's own number.
    """

    def __init__(self, weights: str, video_guidance_scale: float = 1.6, num_inference_steps: int | None = None) -> None:
        self.weights = weights
        self.video_guidance_scale, self.num_inference_steps = video_guidance_scale, num_inference_steps
        self._editor: Editor | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The folder, and how its editor is used."""
        return {
            "editor": type(self).__name__,
            "model": self.weights,
            "video_guidance_scale": self.video_guidance_scale,
            "num_inference_steps": self.num_inference_steps,
        }

    def load(self, device: torch.device) -> None:
        """Load the editor, or move it.

        Raises:
            InputError: The folder holds none.
        """
        if self._editor is None:
            self._editor = Editor.from_pretrained(self.weights, device=device)
        self._editor.model.to(device)

    def edit(self, frame: np.ndarray, instruction: str, guidance_scales: tuple[float, ...], seed: int) -> np.ndarray:
        """Edit a frame 3 H W, uint8, once for each scale of the text; N 3 H W, uint8."""
        assert self._editor is not None, "load comes first"
        still = Clip(np.repeat(frame[None], self._editor.model.working_shape[0], axis=0), 8.0)
        return np.stack([self.edit_clip(still, instruction, scale, seed)[0] for scale in guidance_scales])

    def edit_clip(self, clip: Clip, instruction: str, guidance_scale: float, seed: int) -> np.ndarray:
        """Edit a clip with a scale of the text; F 3 H W, uint8."""
        assert self._editor is not None, "load comes first"
        guidance = Guidance(guidance_scale, self.video_guidance_scale)
        steps = self.num_inference_steps
        edited = self._editor.edit(clip, instruction, guidance=guidance, num_inference_steps=steps, seed=seed)
        return edited.frames
