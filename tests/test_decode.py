"""Videos as people have them: each gives a right clip, frame by frame, or one clear sentence."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from insvie_lightning.batch import Clip
from insvie_lightning.decode import open_video, uneven_seconds
from insvie_lightning.errors import InputError
from insvie_lightning.video import read_clip, write_clip, write_frames


def ramp(frames: int = 6, height: int = 32, width: int = 48) -> np.ndarray:
    """Red grows to the right, green downwards, blue with time."""
    pixels = np.zeros((frames, 3, height, width), np.uint8)
    pixels[:, 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[:, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    pixels[:, 2] = (40 * np.arange(frames) % 256).astype(np.uint8)[:, None, None]
    return pixels


def write_as(path: Path, codec: str, pixel_format: str, images: Sequence[np.ndarray], given: str) -> None:
    """Encode images H W C of the format `given`."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.pix_fmt = pixel_format
        stream.height, stream.width = images[0].shape[:2]
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=given)
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode(None))


def turn(path: Path, matrix: tuple[int, ...]) -> None:
    """Set the display matrix of an mp4's track, as a phone does that is held upright."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    fixed_point = (value << (30 if i % 3 == 2 else 16) for i, value in enumerate(matrix))
    data[start : start + 36] = struct.pack(">9i", *fixed_point)
    path.write_bytes(data)


def test_frames_come_one_by_one(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", Clip(ramp(), 8), lossless=True)
    with open_video(tmp_path / "a.mp4") as video:
        assert (video.size, video.fps) == ((32, 48), 8)
        for pixels, expected in zip(video.frames, ramp(), strict=True):
            assert np.array_equal(pixels, expected)


def test_an_error_of_the_reader_s_own_is_not_taken_for_a_bad_video(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", Clip(ramp(), 8))
    with pytest.raises(ValueError, match=r"^mine$"), open_video(tmp_path / "a.mp4"):
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("matrix", "quarters"),
    [((1, 0, 0, 0, 1, 0, 0, 0, 1), 0), ((0, 1, 0, -1, 0, 0, 0, 0, 1), -1), ((-1, 0, 0, 0, -1, 0, 0, 0, 1), 2)],
    ids=["level", "quarter turn clockwise", "upside down"],
)
def test_a_rotation_flag_is_applied(tmp_path: Path, matrix: tuple[int, ...], quarters: int) -> None:
    write_clip(tmp_path / "a.mp4", Clip(ramp(), 8), lossless=True)
    turn(tmp_path / "a.mp4", matrix)
    expected = np.rot90(ramp(), quarters, axes=(2, 3))
    with open_video(tmp_path / "a.mp4") as video:
        assert video.size == expected.shape[2:]
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mp4").frames, expected)


def test_an_alpha_channel_is_laid_over_black(tmp_path: Path) -> None:
    image = np.full((32, 48, 4), 200, np.uint8)
    image[:, :16, 3], image[:, 16:32, 3], image[:, 32:, 3] = 0, 128, 255
    write_as(tmp_path / "a.mov", "qtrle", "argb", [image] * 3, "rgba")
    frames = read_clip(tmp_path / "a.mov").frames
    assert frames.shape == (3, 3, 32, 48)
    assert [int(frames[:, :, :, x].mean()) for x in (8, 24, 40)] == [0, 100, 200]


def test_ten_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    images = [frame.transpose(1, 2, 0) for frame in ramp()]
    write_as(tmp_path / "a.mkv", "ffv1", "yuv444p10le", images, "rgb24")
    clip = read_clip(tmp_path / "a.mkv")
    assert clip.frames.dtype == np.uint8
    assert np.abs(clip.frames.astype(int) - ramp()).max() <= 3


def test_sixteen_bit_colours(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (32, 48, 3), np.uint16)
    write_as(tmp_path / "a.mkv", "ffv1", "gbrp16le", [image] * 2, "rgb48le")
    assert np.abs(read_clip(tmp_path / "a.mkv").frames[0].transpose(1, 2, 0) - image / 257).max() < 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [7, 24, Fraction(30000, 1001)])
def test_a_constant_rate_is_even(tmp_path: Path, suffix: str, fps: Fraction) -> None:
    with av.open(tmp_path / f"a.{suffix}", "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = 48, 32
        for frame in ramp(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.transpose(1, 2, 0).copy(), format="rgb24")))
        container.mux(stream.encode(None))
    assert uneven_seconds(tmp_path / f"a.{suffix}") is None


def test_uneven_times_are_read_as_they_were_written(tmp_path: Path) -> None:
    seconds = [0.0, 0.1, 0.2, 0.7, 0.8, 2.0]
    write_frames(tmp_path / "a.mp4", ramp(), 5, seconds=seconds)
    assert uneven_seconds(tmp_path / "a.mp4") == pytest.approx(seconds, abs=1e-4)
    assert len(read_clip(tmp_path / "a.mp4")) == 6


def test_times_are_those_of_the_frames_that_are_shown(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height = 48, 32
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, at in zip(ramp(), (-200, -100, 0, 100, 500, 600), strict=True):  # an edit list cuts two off
            frame = av.VideoFrame.from_ndarray(pixels.transpose(1, 2, 0).copy(), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(read_clip(tmp_path / "a.mp4")) == 4
    assert uneven_seconds(tmp_path / "a.mp4") == pytest.approx([0, 0.1, 0.5, 0.6], abs=1e-4)


def test_frames_without_times_of_their_own_have_no_uneven_ones(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as container:  # which rounds to milliseconds
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height = 48, 32
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10_000)
        for pixels, at in zip(ramp(), (0, 4, 1000, 5000, 6000, 20_000), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels.transpose(1, 2, 0).copy(), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 10_000)
            container.mux(stream.encode(frame.reformat(format="yuv444p")))
        container.mux(stream.encode(None))
    assert len(read_clip(tmp_path / "a.mkv")) == 6
    assert uneven_seconds(tmp_path / "a.mkv") is None


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_uneven_times_of_no_video_are_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: (no readable video|no such file)"):
        uneven_seconds(tmp_path / "a.mp4")


def test_sound_has_no_times(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match=r"a\.mkv: no video stream"):
        uneven_seconds(tmp_path / "a.mkv")


def test_one_frame_has_no_rate_of_its_own(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", Clip(ramp(1), 8))
    assert uneven_seconds(tmp_path / "a.mp4") is None
    assert len(read_clip(tmp_path / "a.mp4")) == 1


def test_a_cut_video_is_told_when_it_ends(tmp_path: Path) -> None:
    write_as(tmp_path / "a.mkv", "ffv1", "yuv420p", [frame.transpose(1, 2, 0) for frame in ramp()], "rgb24")
    data = (tmp_path / "a.mkv").read_bytes()
    with open_video(data[: len(data) // 2], name="half") as video:
        assert next(video.frames).shape == (3, 32, 48)
        with pytest.raises(InputError, match=r"half: (cut|no readable video)"):
            list(video.frames)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "ffconcat version 1.0\nfile good.mp4\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 26\n",  # which waits 20 s for the network
    ],
)
def test_a_file_that_names_others_is_no_video(tmp_path: Path, text: str) -> None:
    write_clip(tmp_path / "good.mp4", Clip(ramp(), 8))
    (tmp_path / "a.mp4").write_text(text)
    for read in (read_clip, uneven_seconds):
        with pytest.raises(InputError, match=r"a\.mp4: no readable video"):
            read(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="no readable video"):
        read_clip(text.encode())


def test_frames_and_clips_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4", Clip(ramp(), 8))
    monkeypatch.setattr("insvie_lightning.video.MAX_PIXELS", 32 * 48 * 5)
    with pytest.raises(InputError, match=r"a\.mp4: more than 5 frames of 32x48; cut it into shorter clips"):
        read_clip(tmp_path / "a.mp4")
    assert len(read_clip(tmp_path / "a.mp4", max_frames=5)) == 5
    monkeypatch.setattr("insvie_lightning.decode.MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(InputError, match=r"a\.mp4: frames of 32x48; at most 1,535 pixels are read"):
        read_clip(tmp_path / "a.mp4", max_frames=1)
