"""Rows to samples of one shape."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from insvie_data_modules.samples import Form, RowSamples, Sample, fit, load_rows, stack
from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError
from insvie_lightning.shards.write import ShardWriter


def test_a_place_says_where_the_window_lies(make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(frames=5, size=(32, 48))
    corner = fit(clip, Form(4, (16, 24), "crop"), place=(1.0, 1.0, 0.0)).frames[:, :, 0, 0]
    assert corner.tolist() == [[16, 0, 1], [16, 0, 2], [16, 0, 3], [16, 0, 4]]
    middle = fit(clip, Form(5, (32, 32), "cover"), place=(1.0, 1.0, 1.0)).frames[0, 1, 0]
    assert abs(int(middle[0]) - 8) <= 1  # only `crop` moves its window


def test_a_clip_without_a_form_stays_as_it_is(make_clip: Callable[..., Clip]) -> None:
    clip = make_clip()
    assert fit(clip, Form(None, None, "crop")) is clip


def test_rows_of_folders_come_one_after_the_other(shards: Path, latents: Path) -> None:
    rows = load_rows([latents, shards])
    assert len(rows) == 72 and rows["folder"].to_pylist() == [str(latents)] * 36 + [str(shards)] * 36
    assert len(load_rows(str(shards), "judge < 3")) == 3


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
