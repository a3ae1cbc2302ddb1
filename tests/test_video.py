import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from insvie_lightning import decode, video
from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError
from insvie_lightning.video import (
    encode_clip,
    fit_clip,
    is_h264_mp4,
    legal_frames,
    pad_frames,
    read_clip,
    read_comment,
    release_frames,
    sample_frames,
    write_clip,
    write_frames,
)


def noise(frames: int = 5, height: int = 32, width: int = 48, fps: float = 7.0) -> Clip:
    return Clip(np.random.default_rng(0).integers(0, 256, (frames, 3, height, width), dtype=np.uint8), fps)


def gradient(height: int, width: int) -> Clip:
    """Red grows from left to right, green from top to bottom."""
    pixels = np.zeros((2, 3, height, width), np.uint8)
    pixels[:, 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[:, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Clip(pixels, 10.0)


def fast_start(tmp_path: Path, clip: Clip) -> bytes:
    """An mp4 with its index at the front, so that a cut one still opens."""
    path = tmp_path / "fast.mp4"
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=7)
        stream.height, stream.width = clip.size
        stream.pix_fmt = "yuv420p"
        for pixels in clip.frames:
            image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
@pytest.mark.parametrize("frames", [1, 5])
def test_lossless_round_trip_is_exact(size: tuple[int, int], frames: int) -> None:
    clip = noise(frames, *size)
    again = read_clip(encode_clip(clip, lossless=True))
    np.testing.assert_array_equal(again.frames, clip.frames)
    assert again.fps == clip.fps


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_lossy_round_trip_keeps_size_length_and_colours(size: tuple[int, int]) -> None:
    clip = gradient(*size)
    again = read_clip(encode_clip(clip))
    assert again.frames.shape == clip.frames.shape
    assert again.frames.dtype == np.uint8
    assert np.abs(again.frames.astype(int) - clip.frames).mean() < 3


@pytest.mark.parametrize("fps", [7.0, 30000 / 1001, 24000 / 1001, 12.5])
def test_frame_rate_is_exact(fps: float) -> None:
    assert read_clip(encode_clip(noise(fps=fps))).fps == fps


def test_same_clip_gives_same_bytes() -> None:
    data = encode_clip(noise())
    assert data == encode_clip(noise())
    assert b" threads=1 " in data  # as x264 notes down: more threads, other bytes


def test_write_clip_leaves_one_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "new" / "a.mp4", noise())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
    assert len(read_clip(tmp_path / "new" / "a.mp4")) == 5


def test_write_clip_keeps_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, noise())
    with pytest.raises(InputError, match="0 frames"):
        write_clip(path, noise(frames=0))
    assert len(read_clip(path)) == 5


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    clip = noise(40)
    assert write_frames(tmp_path / "a.mp4", iter(clip.frames), 7, comment="größer") == 40
    assert (tmp_path / "a.mp4").read_bytes() != encode_clip(clip)  # the comment
    assert read_comment(tmp_path / "a.mp4") == "größer"
    write_frames(tmp_path / "b.mp4", clip.frames, 7)
    assert (tmp_path / "b.mp4").read_bytes() == encode_clip(clip)
    assert read_comment(tmp_path / "b.mp4") == read_comment(tmp_path / "absent.mp4") == ""


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield noise().frames[0]
        raise InputError("cut")

    with pytest.raises(InputError, match="cut"):
        write_frames(tmp_path / "a.mp4", frames(), 7)
    assert list(tmp_path.iterdir()) == []


def test_max_frames_stops_early() -> None:
    assert len(read_clip(encode_clip(noise()), max_frames=2)) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "no such file"), (b"", "empty file"), (b"no video at all" * 100, "no readable video")],
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"clip\.mp4: {sentence}"):
        read_clip(path)


def test_cut_index_is_an_error(tmp_path: Path) -> None:
    data = encode_clip(noise())
    with pytest.raises(InputError, match="no readable video"):
        read_clip(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.4, 0.9, 0.999])
def test_cut_frames_are_counted(tmp_path: Path, share: float) -> None:
    data = fast_start(tmp_path, noise(frames=12))
    assert len(read_clip(data)) == 12
    with pytest.raises(InputError, match=r"half: cut, only \d+ of 12 frames are readable"):
        read_clip(data[: int(len(data) * share)], name="half")


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")])
def test_other_containers(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=7)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in noise(frames=12).frames:
            image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    clip = read_clip(path)
    assert (clip.frames.shape, clip.fps) == ((12, 3, 32, 48), 7)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut, only \d of 12 frames are readable"):
        read_clip(path)


def test_sound_without_video_is_an_error() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="no video stream"):
        read_clip(buffer.getvalue())


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_clip(noise())
    monkeypatch.setattr(video, "MAX_FRAMES", 4)
    with pytest.raises(InputError, match="the video: more than 4 frames"):
        read_clip(data)
    monkeypatch.setattr(decode, "MAX_SIDE", 40)
    with pytest.raises(InputError, match="32x48 pixels; at most 40"):
        read_clip(data)


def test_real_videos(shared: Path) -> None:
    horse = read_clip(shared / "real" / "videos" / "horse.mp4")
    assert horse.frames.shape == (49, 3, 480, 720)
    assert horse.fps == 8


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rate(fps: float) -> None:
    with pytest.raises(InputError, match="must be positive"):
        encode_clip(noise(fps=fps))


def test_is_h264_mp4() -> None:
    assert is_h264_mp4(encode_clip(noise()))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=7)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(48, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert not is_h264_mp4(buffer.getvalue())


def test_cover_keeps_the_aspect_and_the_centre() -> None:
    covered = fit_clip(gradient(64, 128), (32, 32)).frames[0]
    assert covered.shape == (3, 32, 32)
    assert covered[0].min() > 55 and covered[0].max() < 200  # the left and the right quarter are gone
    assert covered[1].min() < 10 and covered[1].max() > 245


def test_cover_position() -> None:
    left = fit_clip(gradient(64, 128), (32, 32), position=(0.5, 0.0)).frames[0]
    assert left[0].min() < 10 and left[0].max() < 130


def test_stretch_keeps_everything() -> None:
    stretched = fit_clip(gradient(64, 128), (32, 32), "stretch").frames[0]
    assert stretched[0].min() < 10 and stretched[0].max() > 245


def test_crop_does_not_scale() -> None:
    clip = noise()
    np.testing.assert_array_equal(fit_clip(clip, (20, 30), "crop").frames, clip.frames[:, :, 6:26, 9:39])
    np.testing.assert_array_equal(fit_clip(clip, (20, 30), "crop", (1, 0)).frames, clip.frames[:, :, 12:, :30])
    with pytest.raises(InputError, match="32x48 clip cannot be cropped to 40x40"):
        fit_clip(clip, (40, 40), "crop")


def test_fit_to_its_own_size_changes_nothing() -> None:
    clip = noise()
    assert fit_clip(clip, (32, 48)) is clip


def test_legal_frames() -> None:
    assert [legal_frames(n) for n in (1, 2, 5, 6, 25, 26, 49)] == [1, 5, 5, 9, 25, 29, 49]
    assert legal_frames(10, multiple=8) == 17


def released_script(frames: int) -> tuple[int, int]:
    """Its two rules: cut to 4k + 1, then decode latents 0:3, 3:5, 5:7, ... as long as whole chunks last."""
    seen = frames - 3 if frames % 4 == 0 else frames - frames % 4 + 1
    latents = (seen - 1) // 4 + 1
    chunks = (latents - 1) // 2
    decoded = [9 if chunk == 0 else 8 for chunk in range(chunks)]
    return seen, sum(decoded)


@pytest.mark.parametrize("frames", range(1, 121))
def test_the_release_s_frame_rule(frames: int) -> None:
    if frames < 9:
        assert released_script(frames)[1] == 0
        with pytest.raises(InputError, match=rf"needs 9 frames or more, and this video has {frames}; the rule 'keep'"):
            release_frames(frames)
    else:
        assert release_frames(frames) == released_script(min(frames, 52))


def test_pad_frames_repeats_the_last() -> None:
    clip = noise()
    padded = pad_frames(clip, 9)
    assert len(padded) == 9
    np.testing.assert_array_equal(padded.frames[:5], clip.frames)
    assert (padded.frames[5:] == clip.frames[4]).all()
    assert pad_frames(clip, 3) is clip


@pytest.mark.parametrize(
    ("length", "frames", "start", "taken", "fps"),
    [(9, 5, 0.0, [0, 2, 4, 6, 8], 3.5), (12, 5, 1.0, [3, 5, 7, 9, 11], 3.5), (5, 5, 0.5, [0, 1, 2, 3, 4], 7.0)],
)
def test_sample_frames(length: int, frames: int, start: float, taken: list[int], fps: float) -> None:
    clip = noise(length)
    sampled = sample_frames(clip, frames, start)
    np.testing.assert_array_equal(sampled.frames, clip.frames[taken])
    assert sampled.fps == fps


def test_sample_frames_of_a_short_clip() -> None:
    with pytest.raises(InputError, match="5 frames is too short to take 6"):
        sample_frames(noise(), 6)
