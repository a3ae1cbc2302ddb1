"""What made an edit, so that a rerun knows what it need not make again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from insvie_lightning.errors import InputError
from insvie_lightning.weights.deliverable import trainable_weights

SAMPLING = ("guidance", "num_inference_steps", "seed")
"""Attributes of a model that an option of one edit may replace."""
SETTINGS = ("base", "sampler", "use_ema", "dtype")
"""Further attributes of a model, where it has them, that change its edits."""


def describe_edit(
    model: Any, weights_hash: str, video: Path | str, instruction: str, options: Mapping[str, Any]
) -> str:
    """What makes an edit, as JSON: equal for edits that come out alike.

    Args:
        model: See `Editor`; its class and `SETTINGS` are told.
        weights_hash: Of the model, by `hash_weights`.
        video: Is told by name, size and time of change.
        instruction: What to change.
        options: By name, those that were given; `SAMPLING` is the model's where it was not.

    Raises:
        InputError: There is no such video.
    """
    try:
        file = Path(video).stat()
    except OSError as error:
        raise InputError(f"{video}: {(error.strerror or str(error)).lower()}, but a video file is needed") from None
    told: dict[str, Any] = {"editor": type(model).__name__, "weights": weights_hash, "instruction": instruction}
    told |= {"video": Path(video).name, "video_bytes": file.st_size, "video_mtime_ns": file.st_mtime_ns}
    told |= {name: getattr(model, name) for name in SETTINGS if hasattr(model, name)}
    for name in SAMPLING:
        value = getattr(model, name, None)
        told[name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return json.dumps({**told, **options}, sort_keys=True, default=str)


def hash_weights(model: Any) -> str:
    """BLAKE2b of what was trained of the model's `transformer` or, without one, of the whole model.

    Of all parameters where none is trained; empty for a model that is no module.
    """
    _ = model.working_shape  # builds a network that is built late
    network = getattr(model, "transformer", model)
    if not isinstance(network, nn.Module):
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted((trainable_weights(network) or dict(network.named_parameters())).items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
