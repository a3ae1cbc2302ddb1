"""Videos as drafts: which frames are taken, how far a file is read, and what is wrong with bad ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insvie_data_modules.raw_videos import RawVideos, VideoInputs, take_clip
from insvie_lightning.batch import Clip, Draft
from insvie_lightning.errors import InputError
from insvie_lightning.video import read_clip, write_clip

SMALL = {"frames": 5, "fps": 8.0, "size": (32, 48)}


def moving(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame i is grey 10 * i but for a bright column that moves."""
    clip = np.stack([np.full((3, height, width), 10 * i % 250, np.uint8) for i in range(frames)])
    for i in range(frames):
        clip[i, :, :, i % width] = 255
    return clip


def video(path: Path, frames: int = 20, fps: float = 16.0, height: int = 32, width: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, Clip(moving(frames, height, width), fps), lossless=True)
    return path


def inputs(videos: Path, **options: Any) -> VideoInputs:
    return RawVideos(videos, **{**SMALL, **options}).inputs()


def test_frames_are_taken_at_the_rate_from_the_start(tmp_path: Path) -> None:
    video(tmp_path / "sub dir" / "a.mp4", fps=20.0)
    found = inputs(tmp_path)
    draft = found[0].sample
    assert isinstance(draft, Draft) and found[0].bad == ""
    assert found.keys.to_pylist() == ["sub_dir_a"] == [draft.key]
    # 20 frames a second at 8: every 2.5th, rounded to even halves.
    np.testing.assert_array_equal(draft.source.frames, moving(20)[[0, 2, 5, 8, 10]])
    assert draft.source.fps == 8.0 and draft.origin == "real" and draft.dataset == tmp_path.name
    assert draft.lineage == {"RawVideos": {"file": "sub dir/a.mp4", "fps": 8.0, "source_size": [32, 48]}}
    kept = inputs(tmp_path, fps=None)[0].sample.source
    np.testing.assert_array_equal(kept.frames, moving(20)[:5])
    assert kept.fps == 20.0


def test_a_clip_is_brought_to_the_size(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", height=64, width=128)
    assert inputs(tmp_path)[0].sample.source.frames.shape == (5, 3, 32, 48)
    assert inputs(tmp_path, size=None)[0].sample.source.frames.shape == (5, 3, 64, 128)


def test_no_more_of_a_video_is_read_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def count(frame: Any, *size: int) -> np.ndarray:
        decoded.append(frame)
        return np.full((3, 32, 48), len(decoded), np.uint8)

    video(tmp_path / "three_hours.mp4", frames=400)
    monkeypatch.setattr("insvie_lightning.decode._pixels", count)
    assert take_clip(tmp_path / "three_hours.mp4", "long", 5, 8.0).frames[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 9]
    assert len(decoded) == 9


def test_bad_files_are_rejected_with_their_reason(tmp_path: Path) -> None:
    from PIL import Image

    video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:900])
    Image.new("RGB", (48, 32), (1, 2, 3)).save(tmp_path / "picture.mp4", "png")
    write_clip(tmp_path / "frozen.mp4", Clip(moving(1).repeat(20, axis=0), 16.0))
    video(tmp_path / "short.mp4", frames=8)
    video(tmp_path / "slow.mp4", fps=4.0)
    video(tmp_path / "portrait.mp4", height=96, width=48)
    video(tmp_path / "tiny.mp4", height=16, width=24)
    found = inputs(tmp_path)
    reasons = {key: found[index].bad for index, key in enumerate(found.keys.to_pylist())}
    expected = {
        "good": "",
        "empty": "empty.mp4: empty file, but a video is needed",
        "text": "text.mp4: no readable video (",
        "cut": "cut.mp4: no readable video (",
        "picture": "picture.mp4: one frame only, so it is a picture and no video",
        "frozen": "frozen.mp4: nothing moves in it",
        "short": "short.mp4: too short, 8 frames at 16 a second; 5 frames need 9",
        "slow": "slow.mp4: 4 frames a second, and 8 are wanted",
        "portrait": "portrait.mp4: 96x48 is higher than wide, of which 32x48 would keep little",
        "tiny": "tiny.mp4: 16x24 is smaller than 32x48",
    }
    assert reasons.keys() == expected.keys()
    assert all(reasons[key].startswith(start) for key, start in expected.items()), reasons
    assert reasons["good"] == ""
    allowed = inputs(tmp_path, portrait=True, upscale=True, still=True)
    taken = {key for index, key in enumerate(allowed.keys.to_pylist()) if not allowed[index].bad}
    assert taken == {"good", "frozen", "portrait", "tiny"}


def test_a_csv_names_videos_but_none_outside_its_folder(tmp_path: Path) -> None:
    video(tmp_path / "set" / "a.mp4")
    video(tmp_path / "secret.mp4")
    table = tmp_path / "set" / "list.csv"
    table.write_text("video,instruction,caption\na.mp4,make it snow,a column\n../secret.mp4,x,y\na.mp4,again,\n,b,c\n")
    found = inputs(table)
    assert found.keys.to_pylist() == ["a", "secret", "a_2", "file"]
    first, second, third, fourth = (found[index] for index in range(4))
    assert (first.sample.instruction, first.sample.source_caption) == ("make it snow", "a column")
    assert second.bad == "the row names '../secret.mp4', which is not below the folder of its CSV"
    assert third.bad == "" and third.sample.instruction == "again"
    assert fourth.bad == "line 5 names no video"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("n" * 2000 + "\na.mp4\n", r"has the columns n{140}\.\.\.n{140}; needed is 'video'$"),
        ("vidio\na.mp4\n", r"has the columns vidio; needed is 'video'; did you mean 'vidio'\?"),
        ("video\n", "holds no video"),
    ],
)
def test_a_csv_without_videos_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        inputs(tmp_path / "list.csv")


def test_what_is_not_there_or_no_builder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        inputs(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no video; legal endings are \.avi, "):
        inputs(tmp_path)
    with pytest.raises(InputError, match="frames is 0"):
        RawVideos(tmp_path, frames=0)
    with pytest.raises(InputError, match="fps nan"):
        RawVideos(tmp_path, fps=float("nan"))
    video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="RawVideos feeds builders; NoneType is none"):
        RawVideos(tmp_path).predict_dataloader()


def test_real_videos_become_drafts(shared: Path) -> None:
    found = RawVideos(shared / "real/videos", size=(288, 512), upscale=True, frames=9).inputs()
    drafts = {key: found[index] for index, key in enumerate(found.keys.to_pylist())}
    assert set(drafts) == {"horse", "train_running", "wolf"}
    for name, draft in drafts.items():
        assert draft.bad == "" and draft.sample.source.frames.shape == (9, 3, 288, 512), name
    whole = read_clip(shared / "real/videos/wolf.mp4")
    taken = take_clip(shared / "real/videos/wolf.mp4", "wolf", 9, 7.0)
    np.testing.assert_array_equal(taken.frames, whole.frames[[round(i * whole.fps / 7) for i in range(9)]])
