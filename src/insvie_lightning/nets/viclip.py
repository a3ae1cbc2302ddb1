"""ViCLIP: one embedding for a clip of 8 frames, one for a sentence, in the released checkpoint's key layout.

Structure after OpenGVLab's `InternVideo/Data/InternVid/viclip` (InternVid, arXiv 2307.06942, section 4.1). Its layers
are those of open_clip's transformers, which use the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from open_clip.transformer import QuickGELU, TextTransformer, Transformer
from torch import Tensor, nn

_HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True)
class ViClipSize:
    """Sizes of a ViCLIP; those of ViCLIP-L/14 by default. Heads are 64 wide."""

    side: int = 224
    patch: int = 14
    frames: int = 8
    width: int = 1024
    layers: int = 24
    features: int = 768
    vocabulary: int = 49408
    tokens: int = 32
    text_width: int = 768
    text_layers: int = 12

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "ViClipSize":
        """The sizes of the network that a state dict is of.

        Raises:
            KeyError: It is of no ViCLIP.
        """
        patch = state["vision_encoder.conv1.weight"].shape[-1]
        grid = round((len(state["vision_encoder.positional_embedding"]) - 1) ** 0.5)
        vocabulary, text_width = state["text_encoder.token_embedding.weight"].shape
        width, features = state["vision_encoder.proj"].shape
        return cls(
            side=grid * patch,
            patch=patch,
            frames=state["vision_encoder.temporal_positional_embedding"].shape[1],
            width=width,
            layers=_layers(state, "vision_encoder"),
            features=features,
            vocabulary=vocabulary,
            tokens=len(state["text_encoder.positional_embedding"]),
            text_width=text_width,
            text_layers=_layers(state, "text_encoder"),
        )


class VideoTower(nn.Module):
    """A vision transformer over the patches of all frames at once, with one class token."""

    def __init__(self, size: ViClipSize) -> None:
        super().__init__()
        patch = (1, size.patch, size.patch)
        self.conv1 = nn.Conv3d(3, size.width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(size.width) * size.width**-0.5)
        places = (size.side // size.patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(places, size.width) * size.width**-0.5)
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, size.frames, size.width))
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = Transformer(size.width, size.layers, size.width // _HEAD_WIDTH, act_layer=QuickGELU)
        self.ln_post = nn.LayerNorm(size.width)
        self.proj = nn.Parameter(torch.randn(size.width, size.features) * size.width**-0.5)

    def forward(self, video: Tensor) -> Tensor:
        """Normalised pixels B T 3 h w -> B D; T is the network's number of frames (8), or 1."""
        patches = self.conv1(video.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
        learnt = self.temporal_positional_embedding
        time = learnt.mean(1, keepdim=True) if video.shape[1] == 1 else learnt
        patches = patches + self.positional_embedding[1:] + time[:, :, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(video), 1, -1)
        tokens = self.transformer(self.ln_pre(torch.cat([first, patches.flatten(1, 2)], 1)))
        return self.ln_post(tokens[:, 0]) @ self.proj


class ViClipNet(nn.Module):
    """Both towers, and the temperature that only training needs; embeddings are not normalised."""

    def __init__(self, size: ViClipSize = ViClipSize()) -> None:
        super().__init__()
        self.size = size
        self.temp = nn.Parameter(torch.ones([]))
        self.vision_encoder = VideoTower(size)
        self.text_encoder = TextTransformer(
            context_length=size.tokens,
            vocab_size=size.vocabulary,
            width=size.text_width,
            heads=size.text_width // _HEAD_WIDTH,
            layers=size.text_layers,
            output_dim=size.features,
            act_layer=QuickGELU,
        )

    def embed_video(self, video: Tensor) -> Tensor:
        """Normalised pixels B T 3 h w -> B D."""
        return self.vision_encoder(video)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token ids B L, padded with zeros after the end token, which has the highest number -> B D."""
        return self.text_encoder(tokens)


def _layers(state: Mapping[str, Tensor], tower: str) -> int:
    blocks = f"{tower}.transformer.resblocks."
    return len({key.removeprefix(blocks).split(".")[0] for key in state if key.startswith(blocks)})
