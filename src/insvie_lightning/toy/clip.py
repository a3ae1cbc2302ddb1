"""The shipped CLIP of the toy world, behind the same interface as any other."""

from pathlib import Path

from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from insvie_lightning.nets.clip import load_clip
from insvie_lightning.nets.clip_encoder import OpenClip
from insvie_lightning.toy.text import MAX_TOKENS, build_tokenizer

WEIGHTS = Path(__file__).parent / "weights" / "clip"


def load_toy_clip() -> OpenClip:
    """Read the shipped CLIP; whole frames are squashed to 64 x 96 and scaled to [-1, 1], as it was trained on them."""
    model, tokenizer = load_clip(WEIGHTS), build_tokenizer()
    height, width = model.visual.image_size
    processor = CLIPImageProcessorPil(
        size={"height": height, "width": width}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )

    def tokenize(sentences: list[str]) -> Tensor:
        return tokenizer(
            sentences, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids

    return OpenClip(model, processor, tokenize)
