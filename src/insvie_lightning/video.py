"""Read, write and resize clips, and the rules for their number of frames."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError

Resize = Literal["cover", "stretch", "crop"]
"""How a clip gets another size: keep the aspect and crop, change the aspect, or crop without scaling."""

MAX_SIDE = 8192
MAX_FRAMES = 10_000


def read_clip(source: Path | str | bytes, *, max_frames: int | None = None, name: str | None = None) -> Clip:
    """Decode a video file, or the bytes of one; a rotation flag is ignored.

    Args:
        source: Path, or the encoded video itself.
        max_frames: Stop after so many frames; None reads all.
        name: What to call the video in errors; the path by default.

    Raises:
        InputError: The file is absent, empty, cut or no video, or larger than 8192 pixels a side or 10 000 frames.
    """
    name = name or ("the video" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise InputError(f"{name}: empty file, but a video is needed")
    try:
        with av.open(io.BytesIO(data), "r") as container:
            frames, fps = _decode(container, len(data), max_frames, name)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: no readable video ({reason})") from None
    return Clip(frames, fps)


def encode_clip(clip: Clip, *, crf: int = 18, lossless: bool = False) -> bytes:
    """Encode a clip as an H.264 mp4; the same clip always gives the same bytes.

    Args:
        clip: Any size; odd ones are stored as 4:4:4, since 4:2:0 would have to change them.
        crf: x264's constant rate factor, 0 (best) to 51.
        lossless: Store RGB exactly, which few players show; for tiny clips.

    Raises:
        InputError: The clip has no frames, or its frame rate is not positive.
    """
    if not len(clip) or not (math.isfinite(clip.fps) and clip.fps > 0):
        raise InputError(f"a clip of {len(clip)} frames at {clip.fps} fps cannot be encoded; both must be positive")
    height, width = clip.size
    subsampled = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # The denominator 1001 holds the NTSC rates exactly (29.97 = 30000/1001).
        rate = Fraction(clip.fps).limit_denominator(1001)
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb24" if lossless else subsampled
        # Without macroblock-tree, whose choices vary from run to run on small frames, equal clips make equal bytes.
        stream.options = {"crf": "0" if lossless else str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        # x264's output depends on the number of its threads, which depends on the machine.
        stream.thread_count = 1
        for pixels in clip.frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_clip(path: Path | str, clip: Clip, *, crf: int = 18, lossless: bool = False) -> None:
    """Encode a clip into a file, which appears whole or not at all; see `encode_clip`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(encode_clip(clip, crf=crf, lossless=lossless))
    os.replace(temporary, path)


def is_h264_mp4(data: bytes) -> bool:
    """Tell whether an encoded video that `read_clip` accepts is already what `encode_clip` would make."""
    with av.open(io.BytesIO(data)) as container:
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
        InputError: `crop` of a clip that is smaller than `size`.
    """
    from PIL import Image

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
    stride = (len(clip) - 1) // (frames - 1) if frames > 1 else 1
    first = round(start * (len(clip) - 1 - (frames - 1) * stride))
    taken = clip.frames[first : first + (frames - 1) * stride + 1 : stride].copy()
    return Clip(taken, clip.fps / stride)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {(error.strerror or str(error)).lower()}, but a video file is needed") from None


def _decode(container: InputContainer, size: int, max_frames: int | None, name: str) -> tuple[np.ndarray, float]:
    if not container.streams.video:
        raise InputError(f"{name}: no video stream in it")
    stream = container.streams.video[0]
    height, width = stream.height, stream.width
    if max(height, width) > MAX_SIDE:
        raise InputError(f"{name}: {height}x{width} pixels; at most {MAX_SIDE} a side are read")
    # Decoders skip what is cut off without a word; only an mp4 lists all of its frames beforehand.
    indexed = "mp4" in container.format.name
    index = list(stream.index_entries) if indexed else []
    readable = sum(entry.pos + entry.size <= size for entry in index)
    if readable < len(index):
        raise InputError(f"{name}: cut, only {readable} of {len(index)} frames are readable")
    stream.thread_type = "AUTO"
    images: list[np.ndarray] = []
    seconds: list[float] = []
    for frame in _first(container.decode(stream), max_frames):
        if len(images) == MAX_FRAMES:
            raise InputError(f"{name}: more than {MAX_FRAMES} frames; cut it into shorter clips")
        images.append(frame.to_ndarray(format="rgb24", height=height, width=width))
        seconds.append(frame.time or 0.0)
    rate = stream.average_rate or stream.guessed_rate
    if not images or not rate:
        raise InputError(f"{name}: no frames in it" if not images else f"{name}: its frame rate is not known")
    declared = 0 if indexed else _declared_frames(stream, float(rate), seconds)
    if max_frames is None and len(images) < declared:
        raise InputError(f"{name}: cut, only {len(images)} of {declared} frames are readable")
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)), float(rate)


def _declared_frames(stream: VideoStream, rate: float, seconds: list[float]) -> int:
    """Return how many frames a container without an index of all frames promises; 0 if it does not say."""
    evenly_spaced = abs((seconds[-1] - seconds[0]) * rate - (len(seconds) - 1)) < 0.5
    if stream.frames or not evenly_spaced or "DURATION" not in stream.metadata:
        return stream.frames
    hours, minutes, rest = stream.metadata["DURATION"].split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(rest)) * rate)


def _first(frames: Iterator[VideoFrame], count: int | None) -> Iterator[VideoFrame]:
    for index, frame in enumerate(frames):
        if index == count:
            return
        yield frame
