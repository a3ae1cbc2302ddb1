"""A judge of the toy world: its CLIP compares candidates with the caption of what is asked for."""

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


class ToyJudge:
    """Answers screening questions about toy scenes: the candidate whose CLIP embedding is nearest to the caption's.

    It stands where a vision-language model does (`judges.judge.VisionLanguageModel`), and rejects all candidates where
    the source itself is as near to the caption as the best of them.
    """

    def __init__(self) -> None:
        self._clip = Frozen(lambda: load_clip(CLIP_FOLDER))

    @property
    def identity(self) -> dict[str, Any]:
        """The CLIP of the toy world."""
        return {"model": "toy-clip"}

    def check(self) -> None:
        """Nothing can be absent."""

    @torch.inference_mode()
    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Give the number of the best candidate; a question of another kind, or without a caption, is refused."""
        if not isinstance(question, Question) or question.prompt.scale is not None or not question.caption:
            return Reply("", fault="the toy judge only picks candidates, by the caption of what they should show")
        frames = torch.cat([torch.from_numpy(question.source[:1]), torch.from_numpy(question.edited)])
        source, *candidates = self.agreement(frames, question.caption).tolist()
        best = max(range(len(candidates)), key=candidates.__getitem__)
        return Reply(json.dumps({question.prompt.key: best if candidates[best] > source else NONE_GOOD}))

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
