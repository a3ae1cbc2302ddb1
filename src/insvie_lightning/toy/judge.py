"""A judge of the toy world: its CLIP compares edited frames with the caption of what is asked for."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from insvie_lightning.judges import NONE_GOOD, Question
from insvie_lightning.judges.asked import Asked
from insvie_lightning.judges.reply import Reply
from insvie_lightning.nets.clip import load_clip
from insvie_lightning.nets.frozen import Frozen
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.text import MAX_TOKENS, build_tokenizer

CLIP_FOLDER = Path(__file__).parent / "weights" / "clip"
THRESHOLDS = (0.35, 0.6, 0.88, 0.92)
"""Mean cosines above which an edit is worth 2, 3, 4 and 5.

Of 300 test scenes exact edits have 0.95 +- 0.03, edits that begin after a third of the frames 0.83 +- 0.07, unedited
sources 0.60 +- 0.20 and other scenes 0.03 +- 0.34 (three frames each; mean and standard deviation).
"""


class ToyJudge:
    """Answers questions about toy scenes by how near CLIP embeddings of frames are to that of the caption.

    It stands where a vision-language model does (`judges.judge.VisionLanguageModel`). Of candidates it picks the
    nearest, and rejects all where the source itself is as near as the best of them. An edit is scored by the mean of
    its frames (`THRESHOLDS`).
    """

    def __init__(self) -> None:
        self._clip = Frozen(lambda: load_clip(CLIP_FOLDER))

    @property
    def identity(self) -> dict[str, Any]:
        """The CLIP of the toy world, and how its cosines become scores."""
        return {"model": "toy-clip", "thresholds": list(THRESHOLDS)}

    def check(self) -> None:
        """Nothing can be absent."""

    @torch.inference_mode()
    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Pick a candidate, or score an edit; a question without a caption, or of texts, is refused."""
        if not isinstance(question, Question) or not question.caption:
            return Reply("", fault="the toy judge compares with captions, and has none of what the edit should show")
        (source,) = self.agreement(torch.from_numpy(question.source[:1]), question.caption).tolist()
        edited = self.agreement(torch.from_numpy(question.edited), question.caption).tolist()
        if question.prompt.scale is None:
            best = max(range(len(edited)), key=edited.__getitem__)
            answer = best if edited[best] > source else NONE_GOOD
        else:
            mean = sum(edited) / len(edited)
            answer = question.prompt.scale[sum(mean > threshold for threshold in THRESHOLDS)]
        return Reply(json.dumps({question.prompt.key: answer}))

    @torch.inference_mode()
    def agreement(self, frames: Tensor, caption: str) -> Tensor:
        """Cosine of the embeddings of frames N 3 H W (uint8) and a caption: N values in -1..1."""
        clip = self._clip.on("cpu")
        pixels = interpolate(to_device_pixels(frames), clip.visual.image_size, mode="bilinear", antialias=True)
        tokens = self._tokenizer(
            [caption], padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        return (clip.encode_image(pixels, normalize=True) @ clip.encode_text(tokens, normalize=True).T)[:, 0]

    @cached_property
    def _tokenizer(self) -> Any:
        return build_tokenizer()
