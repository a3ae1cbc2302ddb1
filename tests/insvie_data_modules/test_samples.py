"""Rows to samples of one shape."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from insvie_data_modules.samples import Form, RowSamples, Sample, check_cache, fit, load_rows, stack
from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError
from insvie_lightning.shards.index import index
from insvie_lightning.shards.latents import LATENTS, LatentRecipe, pack_latents
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import encode_clip


def test_a_place_says_where_the_window_lies(make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(frames=5, size=(32, 48))
    corner = fit(clip, Form(4, (16, 24), "crop"), place=(1.0, 1.0, 0.0)).frames[:, :, 0, 0]
    assert corner.tolist() == [[16, 0, 1], [16, 0, 2], [16, 0, 3], [16, 0, 4]]
    middle = fit(clip, Form(5, (32, 32), "cover"), place=(1.0, 1.0, 1.0)).frames[0, 1, 0]
    assert abs(int(middle[0]) - 8) <= 1  # only `crop` moves its window


@pytest.mark.parametrize("size", [(24, 24), (40, 40), (64, 20)])
def test_square_and_small_clips_stay_aligned(make_clip: Callable[..., Clip], size: tuple[int, int]) -> None:
    source = make_clip(frames=2, size=size)
    edited = Clip(255 - source.frames, source.fps)
    form, place = Form(2, (32, 48), "crop", scale_small=True), (0.0, 0.9, 0.2)
    pair = [fit(clip, form, place).frames.astype(int) for clip in (source, edited)]
    assert pair[0].shape == (2, 3, 32, 48)
    assert abs(pair[0] + pair[1] - 255).max() <= 1
    rows, columns = pair[0][0, 0, :, 0], pair[0][0, 1, 0]
    scale = max(32 / size[0], 48 / size[1])
    assert abs((columns[-1] - columns[0]) - 47 / scale) <= 2  # scaled alike along both axes
    assert abs((rows[-1] - rows[0]) - 31 / scale) <= 2
    assert abs(rows[0] - 0.9 * (size[0] - 32 / scale)) <= 2  # the window lies where its place says
    with pytest.raises(InputError, match="cannot be cropped to 32x48"):
        fit(source, Form(2, (32, 48), "crop"), place)


def test_clips_as_long_as_asked_are_not_padded(make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(frames=25, size=(4, 4))
    assert fit(clip, Form(25, None, "crop")).frames[:, 2, 0, 0].tolist() == list(range(25))
    with pytest.raises(InputError, match="25 frames is too short to take 49"):
        fit(clip, Form(49, None, "crop"))
    padded = fit(clip, Form(49, None, "crop", pad_short=True)).frames[:, 2, 0, 0].tolist()
    assert padded == [*range(25), *[24] * 24]


def test_published_zips_are_read_in_place(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    (tmp_path / "train.csv").write_text(
        "video,source_caption,instruction\npexel-static-a.mp4,a ramp,invert it\nb.mp4,,x\n"
    )
    clip = make_clip()
    for side, made in (("source", clip), ("edited", Clip(255 - clip.frames, clip.fps))):
        with zipfile.ZipFile(tmp_path / f"{side}.zip", "w") as archive:
            archive.writestr("pexel-static-a.mp4", encode_clip(made, lossless=True))
            archive.writestr("b.mp4", b"no video")
    index(tmp_path)
    samples = RowSamples(load_rows(tmp_path), Form(None, None, "cover"))
    found = samples[1]  # static samples of a zip come after real ones
    assert torch.equal(found.tensors["source"], torch.from_numpy(clip.frames))
    assert torch.equal(found.tensors["edited"], torch.from_numpy(255 - clip.frames))
    assert (found.origin, found.fps, found.instruction) == ("static", 8.0, "invert it")
    assert stack([found]).source_captions == ("a ramp",) and stack([found]).edited_captions == ("",)
    with pytest.raises(InputError, match=r"sample 'b' of .*/edited\.zip: source clip of 'b': no readable video"):
        samples[0]


def test_a_clip_without_a_form_stays_as_it_is(make_clip: Callable[..., Clip]) -> None:
    clip = make_clip()
    assert fit(clip, Form(None, None, "crop")) is clip


def test_rows_of_folders_come_one_after_the_other(shards: Path, latents: Path) -> None:
    rows = load_rows([latents, shards])
    assert len(rows) == 72 and rows["folder"].to_pylist() == [str(latents)] * 36 + [str(shards)] * 36
    assert len(load_rows(str(shards), "judge < 3")) == 3


def test_rows_lie_on_disk(shards: Path, latents: Path) -> None:
    lines = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "insvie-rows-" in line]
    before = set(lines)
    rows = load_rows([latents, shards])
    lines = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "insvie-rows-" in line]
    spans = [[int(end, 16) for end in line.split("-")] for line in set(lines) - before]
    texts = [chunk.buffers()[2].address for chunk in rows["instruction"].chunks]
    assert len(texts) == 2 and all(any(first <= at < last for first, last in spans) for at in texts)


def test_pixels_and_latents_cannot_share_a_batch(shards: Path, latents: Path) -> None:
    rows = load_rows([latents, shards])
    samples = RowSamples(rows, Form(None, None, "cover"))
    with pytest.raises(InputError, match="cannot share a batch"):
        stack([samples[0], samples[40]])
    assert stack([samples[40]]).keys == (rows["key"][40].as_py(),)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [({"image.png": b"x"}, r"members image\.png; needed are"), ({"latents.safetensors": b"x"}, "is broken or lacks")],
)
def test_a_sample_without_what_it_needs_is_named(tmp_path: Path, members: dict[str, bytes], sentence: str) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write_members({"key": "a", "origin": "real", "fps": 8.0}, members)
    with pytest.raises(InputError, match=f"sample 'a' of .*{sentence}"):
        RowSamples(load_rows(tmp_path), Form(None, None, "cover"))[0]


def test_a_batch_keeps_what_is_known_of_its_samples() -> None:
    samples = [Sample(key, f"do {key}", "pair", 7.0, {"source": torch.zeros(1)}) for key in "ab"]
    batch = stack(samples)
    assert (batch.keys, batch.instructions, batch.origins, batch.fps) == (
        ("a", "b"), ("do a", "do b"), ("pair", "pair"), (7.0, 7.0),
    )  # fmt: skip
    assert batch.source is not None and batch.source.shape == (2, 1) and batch.edited is None


def test_a_broken_first_file_of_latents_does_not_refuse_its_folder(tmp_path: Path) -> None:
    recipe = LatentRecipe("an encoder", frames=5, size=(32, 48), resize="cover", dtype="float32")
    whole = pack_latents({"source": torch.zeros(2, 16, 4, 6), "edited": torch.ones(2, 16, 4, 6)}, recipe)
    with ShardWriter(tmp_path) as writer:
        for key, data in (("a", whole[:-100]), ("b", whole)):
            writer.write_members({"key": key, "instruction": "do"}, {LATENTS: data})
    rows = load_rows(tmp_path)
    check_cache(rows, Form(5, (32, 48), "crop"), None)
    with pytest.raises(InputError, match="are of 5 frames, the run is of 9"):
        check_cache(rows, Form(9, (32, 48), "crop"), None)
    check_cache(rows[:1], Form(9, (32, 48), "crop"), None)  # what cannot be read is set aside when its turn comes
