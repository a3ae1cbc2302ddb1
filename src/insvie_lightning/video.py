"""Read, write and resize clips, and the rules for their number of frames."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import av
import numpy as np
from av.video.frame import VideoFrame

from insvie_lightning.batch import Clip
from insvie_lightning.decode import open_container, open_video
from insvie_lightning.errors import InputError
from insvie_lightning.files import open_regular

Resize = Literal["cover", "stretch", "crop"]
"""How a clip gets another size: keep the aspect and crop, change the aspect, or crop without scaling."""

MAX_FRAMES = 10_000
MAX_PIXELS = 1_000_000_000
"""Of all frames of a clip in memory, which takes three bytes each: 40 s of 1080p at 12 frames a second."""
TICK = Fraction(1, 90_000)
"""Unit of uneven time stamps in seconds: MPEG's clock."""


def read_clip(source: Path | str | bytes, *, max_frames: int | None = None, name: str | None = None) -> Clip:
    """Decode a video file, or the bytes of one, into memory; see `open_video`.

    Args:
        source: Path, or the encoded video itself.
        max_frames: Stop after so many frames; None reads all.
        name: What to call the video in errors; the path by default.

    Raises:
        InputError: As `open_video`, or there are more than 10 000 frames, or 10^9 pixels in all.
    """
    name = name or ("the video" if isinstance(source, bytes) else str(source))
    with open_video(source, name=name) as video:
        images: list[np.ndarray] = []
        limit = min(MAX_FRAMES, MAX_PIXELS // (video.size[0] * video.size[1]))
        too_long = InputError(f"{name}: more than {limit} frames of {_by(video.size)}; cut it into shorter clips")
        if min(video.promised, max_frames or video.promised) > limit:
            raise too_long  # before minutes are spent on it
        for pixels in video.frames:
            if len(images) == limit:
                raise too_long
            images.append(pixels)
            if len(images) == max_frames:
                break
    return Clip(np.stack(images), video.fps)


def _by(size: tuple[int, int]) -> str:
    return "{}x{}".format(*size)


def encode_clip(clip: Clip, *, crf: int = 18, lossless: bool = False) -> bytes:
    """Encode a clip as an H.264 mp4; the same clip always gives the same bytes.

    Args:
        clip: Any size; odd ones are stored as 4:4:4, since 4:2:0 would have to change them.
        crf: x264's constant rate factor, 0 (best) to 51.
        lossless: Store RGB exactly, which few players show; for tiny clips.

    Raises:
        InputError: The clip has no frames, or its frame rate is not positive.
    """
    buffer = io.BytesIO()
    _encode(buffer, clip.frames, clip.fps, crf, lossless)
    return buffer.getvalue()


def write_clip(path: Path | str, clip: Clip, *, crf: int = 18, lossless: bool = False) -> None:
    """Encode a clip into a file, which appears whole or not at all; see `encode_clip`."""
    write_frames(path, clip.frames, clip.fps, crf=crf, lossless=lossless)


def write_frames(
    path: Path | str,
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    seconds: Sequence[float] | None = None,
    crf: int = 18,
    lossless: bool = False,
    comment: str = "",
) -> int:
    """Encode frames as they come into a file, which appears whole or not at all; return their number.

    Args:
        path: An mp4.
        frames: 3 H W each (uint8), all of one size; see `encode_clip`.
        fps: Frames per second.
        seconds: Times of the frames where they are uneven (`uneven_seconds`).
        crf: x264's constant rate factor, 0 (best) to 51.
        lossless: Store RGB exactly.
        comment: Text to keep in the file; `read_comment` reads it.

    Raises:
        InputError: There are no frames, or the frame rate is not positive.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            count = _encode(file, frames, fps, crf, lossless, seconds, comment)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_comment(path: Path | str) -> str:
    """Return what `write_frames` kept in a file as its comment; empty where there is none, or no video."""
    try:
        with open_regular(path) as file, open_container(file) as container:
            return container.metadata.get("comment", "")
    except (av.FFmpegError, OSError, ValueError):
        return ""


def is_h264_mp4(data: bytes) -> bool:
    """Tell whether an encoded video that `read_clip` accepts is already what `encode_clip` would make."""
    with open_container(io.BytesIO(data)) as container:
        return "mp4" in container.format.name and container.streams.video[0].codec_context.name == "h264"


def fit_clip(
    clip: Clip, size: tuple[int, int], resize: Resize = "cover", position: tuple[float, float] = (0.5, 0.5)
) -> Clip:
    """Return the clip at another size, bicubic.

    Args:
        clip: F 3 H W.
        size: New height and width in pixels.
        resize: `cover` scales until the size is covered and crops the rest, `stretch` scales both axes on their own,
            `crop` only crops.
        position: Where the crop lies, vertically and horizontally: 0 top or left, 0.5 centre, 1 bottom or right.

    Raises:
        InputError: `crop` of a clip that is smaller than `size`, or `size` is no size.
    """
    from PIL import Image

    if min(size) < 1:
        raise InputError(f"size is {_by(size)}; height and width are at least 1 px")
    if clip.size == size:
        return clip
    (height, width), (new_height, new_width) = clip.size, size
    if resize == "crop":
        if height < new_height or width < new_width:
            raise InputError(f"a {height}x{width} clip cannot be cropped to {new_height}x{new_width}; use 'cover'")
        y, x = (round(at * (old - new)) for at, old, new in zip(position, clip.size, size, strict=True))
        return replace(clip, frames=clip.frames[:, :, y : y + new_height, x : x + new_width].copy())
    scale = max(new_height / height, new_width / width)
    box_height, box_width = (height, width) if resize == "stretch" else (new_height / scale, new_width / scale)
    top, left = position[0] * (height - box_height), position[1] * (width - box_width)
    box = (left, top, min(left + box_width, width), min(top + box_height, height))
    frames = np.empty((len(clip), 3, *size), np.uint8)
    for index, pixels in enumerate(clip.frames):
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC, box=box)
        frames[index] = np.asarray(resized).transpose(2, 0, 1)
    return replace(clip, frames=frames)


def legal_frames(frames: int, multiple: int = 4) -> int:
    """Return the smallest `multiple` * k + 1 that is at least `frames`: what a causal video VAE can encode."""
    return math.ceil((frames - 1) / multiple) * multiple + 1


def release_frames(frames: int) -> tuple[int, int]:
    """How many frames of a clip of `frames` the released InsViE edits, and how many of these it gives back.

    Its script cuts to the largest 4k + 1, and its decoder loses the last latent of an even number: 8k + 1 come back.
    Of more than 52 frames, where it crashes, the first 49 are taken (`sample_video_edit.py`).

    Raises:
        InputError: Fewer than 9 frames, where it crashes, too.
    """
    if frames < 9:
        raise InputError(
            f"the release's frame rule needs 9 frames or more, and this video has {frames}; the rule 'keep' takes any"
        )
    return min(49, (frames - 1) // 4 * 4 + 1), min(49, (frames - 1) // 8 * 8 + 1)


def pad_frames(clip: Clip, frames: int) -> Clip:
    """Repeat the last frame until there are `frames`; a clip that has as many or more is returned as it is."""
    missing = frames - len(clip)
    if missing <= 0:
        return clip
    return replace(clip, frames=np.concatenate([clip.frames, clip.frames[-1:].repeat(missing, axis=0)]))


def sample_frames(clip: Clip, frames: int, start: float = 0.0) -> Clip:
    """Take `frames` frames at the widest even stride that fits.

    Args:
        clip: At least `frames` long.
        frames: How many to take.
        start: Where the window lies in the slack that the stride leaves: 0 at the beginning, 1 at the end.

    Raises:
        InputError: The clip is too short.
    """
    if len(clip) < frames:
        raise InputError(f"a clip of {len(clip)} frames is too short to take {frames} from it")
    if len(clip) == frames:
        return clip
    stride = (len(clip) - 1) // (frames - 1) if frames > 1 else 1
    first = round(start * (len(clip) - 1 - (frames - 1) * stride))
    taken = clip.frames[first : first + (frames - 1) * stride + 1 : stride].copy()
    return Clip(taken, clip.fps / stride)


def _encode(
    target: BinaryIO,
    frames: Iterable[np.ndarray],
    fps: float,
    crf: int,
    lossless: bool,
    seconds: Sequence[float] | None = None,
    comment: str = "",
) -> int:
    following = iter(frames)
    first = next(following, None)
    if first is None or not (math.isfinite(fps) and fps > 0):
        frames_here = "0" if first is None else "any"
        raise InputError(f"a clip of {frames_here} frames at {fps} fps cannot be encoded; both must be positive")
    height, width = first.shape[1:]
    subsampled = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    with av.open(target, "w", format="mp4") as container:
        if comment:
            container.metadata["comment"] = comment
        # The denominator 1001 holds the NTSC rates exactly (29.97 = 30000/1001).
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb24" if lossless else subsampled
        # Without macroblock-tree, whose choices vary from run to run on small frames, equal clips make equal bytes.
        stream.options = {"crf": "0" if lossless else str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        # x264's output depends on the number of its threads, which depends on the machine.
        stream.thread_count = 1
        if seconds is not None:
            stream.codec_context.time_base = TICK
        count = 0
        for count, pixels in enumerate(chain([first], following), 1):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), format="rgb24")
            if seconds is not None:
                frame.pts, frame.time_base = round(seconds[count - 1] / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count
