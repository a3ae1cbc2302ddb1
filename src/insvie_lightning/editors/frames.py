"""Edit single frames with a trained video editor, as image editors do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from insvie_lightning.batch import Clip
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors.editor import Editor


class VideoEditor:
    """A trained video editor that edits a frame as a video in which nothing moves (`builders.ImageEditor`).

    For editors that were trained on few frames, such as those of the toy world; the first frame of the edit is taken.
    Candidates are made one after another.

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
        frames = self._editor.model.working_shape[0]
        still = Clip(np.repeat(frame[None], frames, axis=0), 8.0)
        edited = []
        for scale in guidance_scales:
            guidance = Guidance(scale, self.video_guidance_scale)
            steps = self.num_inference_steps
            clip = self._editor.edit(still, instruction, guidance=guidance, num_inference_steps=steps, seed=seed)
            edited.append(clip.frames[0])
        return np.stack(edited)
