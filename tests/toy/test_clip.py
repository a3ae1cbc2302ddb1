"""The shipped CLIP sees frames and sentences as it was trained on them."""

import torch

from insvie_lightning.nets.clip import load_clip
from insvie_lightning.nets.clip_encoder import ClipEncoder
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.clip import WEIGHTS, load_toy_clip
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.toy.text import build_tokenizer


@torch.no_grad()
def test_embeddings_are_those_of_training() -> None:
    triplet = to_triplet(example("test", 3))
    clip, model = torch.from_numpy(triplet.source.frames), load_clip(WEIGHTS)
    encoder = ClipEncoder(load_toy_clip)
    frames = encoder.frames(clip).projected
    torch.testing.assert_close(frames, model.encode_image(to_device_pixels(clip)), atol=1e-4, rtol=0)
    tokens = build_tokenizer()([triplet.source_caption], padding="max_length", return_tensors="pt").input_ids
    sentence = encoder.sentence(triplet.source_caption, clip.device)
    torch.testing.assert_close(sentence, model.encode_text(tokens)[0], atol=1e-5, rtol=0)
