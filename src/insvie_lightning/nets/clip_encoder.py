"""CLIP embeddings of clips and sentences: one interface to the CLIPs of two libraries, one encoding for all its users.

transformers and open_clip are imported when a network is loaded, so that what only names a CLIP starts fast.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import read_json
from insvie_lightning.nets.clip_pixels import Preprocessing, clip_pixels, to_tgve_square
from insvie_lightning.nets.frozen import Frozen
from insvie_lightning.nets.recent import Recent, fingerprint

_FRAMES_AT_ONCE = 32
_CLIPS_KEPT, _SENTENCES_KEPT = 32, 256  # below 200 KB a clip of 25 frames


@dataclass(frozen=True, slots=True)
class FrameEmbeddings:
    """Embeddings of F frames, none of them normalised.

    Attributes:
        projected: F D, in the space that images and sentences share.
        pooled: F W, of the class token after the last layer norm, before the projection.
    """

    projected: Tensor
    pooled: Tensor


class TransformersClip(nn.Module):
    """transformers' `CLIPModel`.

    Args:
        model: The network.
        processor: `CLIPImageProcessorPil` with its settings.
        tokenizer: Of its sentences.
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.processor, self.tokenizer = model, processor, tokenizer
        self.size = (model.config.vision_config.image_size,) * 2

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: exp of the trained parameter."""
        return float(self.model.logit_scale.exp())

    def embed_frames(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed normalised pixels F 3 h w."""
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        return FrameEmbeddings(self.model.visual_projection(pooled), pooled)

    def embed_sentence(self, sentence: str) -> Tensor:
        """Embed a sentence, cut to what the network was made for (77 tokens): D, projected."""
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([sentence], truncation=True, max_length=longest, return_tensors="pt")
        tokens = tokens.to(self.model.logit_scale.device)
        text = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return self.model.text_projection(text.pooler_output)[0]


class OpenClip(nn.Module):
    """open_clip's `CLIP` with a vision transformer.

    Args:
        model: The network; its visual projection is taken out, so that one pass gives both kinds of embedding.
        processor: `CLIPImageProcessorPil` with its settings.
        tokenize: From sentences to token ids B L.

    Raises:
        InputError: Its images are not projected by a matrix, as those of a residual network.
    """

    def __init__(self, model: Any, processor: Any, tokenize: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        if not isinstance(getattr(model.visual, "proj", None), nn.Parameter):
            raise InputError(
                f"open_clip's {type(model.visual).__name__} has no visual projection: name a CLIP with a "
                "VisionTransformer, such as ViT-L-14"
            )
        self.projection, model.visual.proj = model.visual.proj, None
        self.model, self.processor, self.tokenize = model, processor, tokenize
        side = model.visual.image_size
        self.size = side if isinstance(side, tuple) else (side, side)

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: exp of the trained parameter."""
        return float(self.model.logit_scale.exp())

    def embed_frames(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed normalised pixels F 3 h w."""
        pooled = self.model.visual(pixels)
        return FrameEmbeddings(pooled @ self.projection, pooled)

    def embed_sentence(self, sentence: str) -> Tensor:
        """Embed a sentence, cut to what the network was made for: D, projected."""
        return self.model.encode_text(self.tokenize([sentence]).to(self.projection.device))[0]


class ClipEncoder:
    """A CLIP that embeds the same clip or sentence once, however many ask for it; it belongs to no module tree.

    Args:
        load: Makes the network, when it is first needed.
    """

    def __init__(self, load: Callable[[], TransformersClip | OpenClip]) -> None:
        self.net = Frozen(load)
        self._clips: Recent[FrameEmbeddings] = Recent(_CLIPS_KEPT)
        self._sentences: Recent[Tensor] = Recent(_SENTENCES_KEPT)

    def frames(self, clip: Tensor, preprocessing: Preprocessing = "pil", tgve_square: bool = False) -> FrameEmbeddings:
        """Embed a clip F 3 H W, uint8, on its device.

        Args:
            clip: The frames.
            preprocessing: See `nets.clip_pixels.Preprocessing`.
            tgve_square: Resize to 480 x 480 first, as TGVE's script does.
        """
        seen = to_tgve_square(clip) if tgve_square else clip
        key = (fingerprint(seen), preprocessing, clip.device)
        return self._clips.get(key, lambda: self._embed(seen, preprocessing))

    def sentence(self, sentence: str, device: torch.device) -> Tensor:
        """Embed a sentence on a device: D, projected, not normalised."""
        return self._sentences.get((sentence, device), lambda: self.net.on(device).embed_sentence(sentence))

    def logit_scale(self, device: torch.device) -> float:
        """What cosines are multiplied by: 100 for OpenAI's weights, read from those that are loaded."""
        return self.net.on(device).logit_scale

    def _embed(self, clip: Tensor, preprocessing: Preprocessing) -> FrameEmbeddings:
        net = self.net.on(clip.device)
        pixels = clip_pixels(clip, net.processor, net.size, preprocessing)
        parts = [net.embed_frames(part) for part in pixels.split(_FRAMES_AT_ONCE)]
        return FrameEmbeddings(torch.cat([p.projected for p in parts]), torch.cat([p.pooled for p in parts]))


def load_transformers_clip(folder: Path, processor: Path) -> TransformersClip:
    """Read a CLIP that transformers' `save_pretrained` wrote.

    Args:
        folder: Holds `config.json` and `model.safetensors`.
        processor: Holds the tokenizer's files and `preprocessor_config.json`.

    Raises:
        InputError: The folder holds no whole CLIP in this layout.
    """
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = folder / "config.json"
    if not config.is_file():
        if (folder / "open_clip_config.json").is_file():
            raise InputError(f"{folder} holds a CLIP of open_clip; name it 'open_clip:{folder}'")
        raise InputError(f"{folder} has no config.json: a CLIP is a folder that transformers' save_pretrained wrote")
    kind = read_json(config).get("model_type")
    if kind != "clip":
        raise InputError(f"{config} is of a model of type {kind!r}; legal is 'clip'")
    try:
        model, info = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, local_files_only=True
        )
        pixels = CLIPImageProcessorPil.from_pretrained(processor, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(processor, local_files_only=True)
    except Exception as error:  # the libraries have errors of their own for a damaged file
        raise InputError(f"the CLIP in {folder} cannot be read: {first_line(error)}") from error
    if info["missing_keys"]:
        raise InputError(
            f"the CLIP in {folder} lacks {len(info['missing_keys'])} weights, such as {min(info['missing_keys'])}"
        )
    return TransformersClip(model, pixels, tokenizer)


def load_open_clip(folder: Path) -> OpenClip:
    """Read a CLIP in open_clip's layout: `open_clip_config.json` and weights.

    Raises:
        InputError: The folder holds no CLIP in this layout.
    """
    import open_clip
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if not (folder / "open_clip_config.json").is_file():
        raise InputError(f"{folder} has no open_clip_config.json; a CLIP of transformers is named without 'open_clip:'")
    try:
        model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, weights_only=True)
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    except Exception as error:  # the libraries have errors of their own for a damaged file
        raise InputError(f"the CLIP in {folder} cannot be read: {first_line(error)}") from error
    settings, side = model.visual.preprocess_cfg, model.visual.image_size
    height, width = side if isinstance(side, tuple) else (side, side)
    squashed = settings.get("resize_mode") == "squash" or height != width
    processor = CLIPImageProcessorPil(
        size={"height": height, "width": width} if squashed else {"shortest_edge": height},
        crop_size={"height": height, "width": width},
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )
    return OpenClip(model, processor, tokenize)
