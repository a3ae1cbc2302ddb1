"""What drafts and triplets are stored as, and back: `source.mp4` or `source.png`, `edited.mp4`, `edited_frame.png`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.read import decode_triplet
from insvie_lightning.shards.record import to_record

SOURCE, STILL, EDITED, EDITED_FRAME = "source.mp4", "source.png", "edited.mp4", "edited_frame.png"


def clips_of(sample: Draft | Triplet) -> dict[str, Clip]:
    """Return the clips of a sample by the name that each is stored under; a picture is a clip of one frame."""
    clips = {STILL if isinstance(sample, Draft) and len(sample.source) == 1 else SOURCE: sample.source}
    if isinstance(sample, Triplet):
        return {**clips, EDITED: sample.edited}
    return clips if sample.edited_frame is None else {**clips, EDITED_FRAME: Clip(sample.edited_frame[None], 0.0)}


def encode_member(name: str, clip: Clip, lossless: bool = False) -> bytes:
    """Encode one of `clips_of`; the same clip always gives the same bytes.

    Raises:
        InputError: The clip has no frames, or its frame rate is not positive.
    """
    from insvie_lightning.video import encode_clip

    return encode_png(clip.frames[0]) if name.endswith(".png") else encode_clip(clip, lossless=lossless)


def decode_sample(record: Mapping[str, Any], members: Mapping[str, bytes]) -> Draft | Triplet:
    """Return the triplet (where there is `edited.mp4`) or the draft of a manifest row and its members.

    Raises:
        InputError: A member is missing or cannot be decoded; the sentence names the key.
    """
    from insvie_lightning.video import read_clip

    record, key = to_record(record), record["key"]
    if SOURCE not in members and STILL not in members:
        found = ", ".join(members) or "nothing"
        raise InputError(f"sample {key!r} has no source: it holds {found}, and {SOURCE} or {STILL} is needed")
    if EDITED in members:
        return decode_triplet(record, members[SOURCE], members[EDITED])
    if STILL in members:
        source = Clip(decode_png(members[STILL], f"source of {key!r}")[None], record.get("fps") or 0.0)
    else:
        source = read_clip(members[SOURCE], name=f"source clip of {key!r}")
    edited = members.get(EDITED_FRAME)
    frame = None if edited is None else decode_png(edited, f"edited frame of {key!r}")
    texts = {name: value for name, value in record.items() if name not in ("key", "frames", "height", "width", "fps")}
    return Draft(key, source, frame, **texts)


def encode_png(frame: np.ndarray) -> bytes:
    """Encode a picture 3 H W, uint8; the same picture always gives the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(buffer, "png", compress_level=3)
    return buffer.getvalue()


def decode_png(data: bytes, name: str) -> np.ndarray:
    """Decode a picture of any format to 3 H W, uint8, upright; transparency is laid over black.

    Args:
        data: The file.
        name: What to call it in errors.

    Raises:
        InputError: No readable picture, or one so large that it may be a trap.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise InputError(f"{name}: empty file, but a picture is needed")
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # which Pillow would cut off at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode in ("I", "F"):
                raise InputError(f"{name}: pixels of 32 bits, whose range is not known; 8 or 16 bits are read")
            if upright.has_transparency_data:
                layered = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)
            return np.ascontiguousarray(np.asarray(upright.convert("RGB")).transpose(2, 0, 1))
    except InputError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, TypeError, ValueError) as error:
        # Pillow's own sentence names the buffer that it was given.
        kind = "it is too large" if isinstance(error, Image.DecompressionBombError) else "broken, or another format"
        raise InputError(f"{name}: no readable picture ({kind})") from None
