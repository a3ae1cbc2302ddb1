"""Read videos frame by frame, and say in one sentence what is wrong with one that cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from insvie_lightning.errors import InputError
from insvie_lightning.files import open_regular

MAX_SIDE = 8192
MAX_PIXELS = 8192 * 4320
"""Of a frame: 8K. Larger ones are hardly videos, but a way to fill a memory with a small file."""
_FORMATS = "mov,matroska,avi,gif,mpegts,mpeg,flv,asf,ogg,png_pipe,jpeg_pipe,webp_pipe"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
"""Of FFmpeg, which by its first bytes might take a file for a playlist, and fetch what that names from anywhere.

Pictures are opened, so that a caller can say that they are none of the videos it needs.
"""


@dataclass(frozen=True, slots=True)
class Video:
    """An open video.

    Attributes:
        size: Height and width in pixels.
        fps: Mean frame rate.
        frames: Frames 3 H W (uint8, RGB) as they come.
        promised: How many frames its container says there are; 0 if it does not.
    """

    size: tuple[int, int]
    fps: float
    frames: Iterator[np.ndarray]
    promised: int = 0


@contextmanager
def open_video(source: Path | str | bytes, *, name: str | None = None) -> Iterator[Video]:
    """Open a video file, or the bytes of one, to read it frame by frame in the memory of a few frames.

    A rotation flag (portrait videos of phones) is applied, an alpha channel laid over black, more than 8 bits rounded.

    Args:
        source: Path, or the encoded video itself.
        name: What to call the video in errors; the path by default.

    Raises:
        InputError: The file is absent, no regular file, empty, cut or no video, or larger than 8192 pixels a side or
            8192 x 4320 in all; what shows only in the frames is raised where they are read.
    """
    name = name or ("the video" if isinstance(source, bytes) else str(source))
    with _open_file(source, name) as file:
        with _readable(name):
            bytes_in_file = file.seek(0, os.SEEK_END)
            if not bytes_in_file:
                raise InputError(f"{name}: empty file, but a video is needed")
            file.seek(0)
            container = open_container(file)
        with container:
            with _readable(name):
                stream, rate = _probe(container, bytes_in_file, name)
                frames = _decode(container, stream, rate, name)
                first = next(frames)
            yield Video((first.shape[1], first.shape[2]), rate, chain([first], frames), stream.frames)


def open_container(file: BinaryIO) -> InputContainer:
    """Open a file that holds its video itself; one that only names others, such as a playlist, is refused.

    Raises:
        av.FFmpegError: It holds none.
    """
    return av.open(file, "r", options=_OPTIONS)


def uneven_seconds(path: Path | str) -> list[float] | None:
    """Times of the shown frames of a video of variable frame rate, from 0; None for a constant rate.

    They are those of `open_video`, one for each; where not every frame has a time of its own the answer is None, too.

    Uneven is what lies more than a quarter of a frame off the grid of the mean rate: containers that round their time
    stamps to milliseconds are not.

    Raises:
        InputError: No readable video.
    """
    with _open_file(path, str(path)) as file, _readable(str(path)), open_container(file) as container:
        stream = _stream(container, str(path))
        # Decoded, since packets may hold frames that are not shown: cut off by an edit list, or only referred to.
        stamps = [frame.pts for frame in container.decode(stream)]
        times = sorted({stamp for stamp in stamps if stamp is not None})
        if not 3 <= len(times) == len(stamps) or stream.time_base is None:
            return None
        seconds = [float((time - times[0]) * stream.time_base) for time in times]
    step = seconds[-1] / (len(seconds) - 1)
    return seconds if any(abs(at - i * step) > step / 4 for i, at in enumerate(seconds)) else None


@contextmanager
def _open_file(source: Path | str | bytes, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with open_regular(source, "a video file", name) as file:
        yield file


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Say what a library raised while it read the video `name`."""
    try:
        yield
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: no readable video ({reason})") from None


def _stream(container: InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        raise InputError(f"{name}: no video stream in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InputError(f"{name}: no readable video (of an unknown codec)")
    # A loader reads one video a core; more threads make a clip of 9 small frames cost three times the processor time,
    # and, where the cores are busy, twenty times the time. The same goes for `threads` below, which are swscale's.
    stream.thread_type = "NONE"
    return stream


def _probe(container: InputContainer, bytes_in_file: int, name: str) -> tuple[VideoStream, float]:
    stream = _stream(container, name)
    if max(stream.height, stream.width) > MAX_SIDE:
        raise InputError(f"{name}: {stream.height}x{stream.width} pixels; at most {MAX_SIDE} a side are read")
    if stream.height * stream.width > MAX_PIXELS:
        raise InputError(f"{name}: frames of {stream.height}x{stream.width}; at most {MAX_PIXELS:,} pixels are read")
    # Decoders skip what is cut off without a word; only an mp4 lists all of its frames beforehand.
    index = list(stream.index_entries) if "mp4" in container.format.name else []
    readable = sum(entry.pos + entry.size <= bytes_in_file for entry in index)
    if readable < len(index):
        raise InputError(f"{name}: cut, only {readable} of {len(index)} frames are readable")
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise InputError(f"{name}: its frame rate is not known")
    return stream, float(rate)


def _decode(container: InputContainer, stream: VideoStream, rate: float, name: str) -> Iterator[np.ndarray]:
    height, width = stream.height, stream.width
    seconds: list[float] = []
    with _readable(name):
        for frame in container.decode(stream):
            seconds.append(frame.time or 0.0)
            yield _pixels(frame, height, width)
    if not seconds:
        raise InputError(f"{name}: no frames in it")
    declared = 0 if "mp4" in container.format.name else _declared_frames(stream, rate, seconds)
    if len(seconds) < declared:
        raise InputError(f"{name}: cut, only {len(seconds)} of {declared} frames are readable")


def _pixels(frame: VideoFrame, height: int, width: int) -> np.ndarray:
    """The frame as a viewer sees it, 3 H W."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba", height=height, width=width, threads=1).astype(np.uint16)
        pixels: np.ndarray = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    else:
        pixels = frame.to_ndarray(format="rgb24", height=height, width=width, threads=1)
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.ascontiguousarray(np.rot90(pixels, turns))
    return pixels.astype(np.uint8, copy=False).transpose(2, 0, 1)  # a view: who needs another layout copies once


def _declared_frames(stream: VideoStream, rate: float, seconds: list[float]) -> int:
    """Return how many frames a container without an index of all frames promises; 0 if it does not say."""
    evenly_spaced = abs((seconds[-1] - seconds[0]) * rate - (len(seconds) - 1)) < 0.5
    if stream.frames or not evenly_spaced or "DURATION" not in stream.metadata:
        return stream.frames
    hours, minutes, rest = stream.metadata["DURATION"].split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(rest)) * rate)
