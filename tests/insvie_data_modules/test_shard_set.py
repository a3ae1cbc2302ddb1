"""Every accepted sample, once and in order."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from insvie_data_modules.shard_set import ShardSet
from insvie_lightning.batch import Clip, EditBatch, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.write import ShardWriter


def batches(data: ShardSet) -> list[EditBatch]:
    return list(data.predict_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_come_in_the_order_of_the_manifest(shards: Path, workers: int) -> None:
    found = batches(ShardSet(shards, batch_size=5, frames=4, size=(16, 24), num_workers=workers))
    assert [key for batch in found for key in batch.keys] == open_manifest(shards).query()["key"].to_pylist()
    assert [len(batch) for batch in found] == [5] * 7 + [1]
    first = found[0]
    assert first.source is not None and first.edited is not None and first.position is None
    assert first.source.shape == first.edited.shape == (5, 4, 3, 16, 24)
    assert first.instructions[0] == f"invert {first.keys[0]}" and first.fps == (8.0,) * 5


def test_clips_keep_their_own_shape_unless_told_otherwise(shards: Path) -> None:
    whole = batches(ShardSet(shards, limit=1))[0]
    assert whole.source is not None and whole.edited is not None
    assert whole.source.shape == (1, 4, 3, 32, 48)
    assert torch.equal(255 - whole.source, whole.edited)
    cropped = batches(ShardSet(shards, limit=1, frames=2, size=(16, 24), resize="crop"))[0]
    assert cropped.source is not None
    assert cropped.source[0, :, :, 0, 0].tolist() == [[8, 12, 0], [8, 12, 3]]  # the middle, at the widest stride


def test_limit_and_clause_choose_samples(shards: Path) -> None:
    assert sum(len(batch) for batch in batches(ShardSet(shards, limit=3))) == 3
    judged = [key for batch in batches(ShardSet(shards, where="judge >= 34")) for key in batch.keys]
    assert [key[-2:] for key in judged] == ["34", "35"]


def test_rejected_samples_are_left_out(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write(make_triplet("good"))
        writer.reject("bad", "blurred")
    assert [batch.keys for batch in batches(ShardSet(tmp_path))] == [("good",)]


def test_clips_of_two_shapes_cannot_share_a_batch(
    make_shards: Callable[..., Path], make_triplet: Callable[..., Triplet], make_clip: Callable[..., Clip]
) -> None:
    folder = make_shards([make_triplet("a"), make_triplet("b", clip=make_clip(size=(16, 16)))])
    assert len(batches(ShardSet(folder, batch_size=1))) == 2
    with pytest.raises(InputError, match=r"'a' and 'b' cannot share a batch.*batch_size 1"):
        batches(ShardSet(folder, batch_size=2))


def test_an_unusable_sample_is_named(shards: Path) -> None:
    with pytest.raises(
        InputError, match=r"sample '\w+' of .*shard-000000.tar: a clip of 4 frames is too short to take 9"
    ):
        batches(ShardSet(shards, frames=9))


def test_an_empty_selection_is_refused(shards: Path) -> None:
    with pytest.raises(InputError, match=r"no accepted sample of .* matches `judge > 99`"):
        ShardSet(shards, where="judge > 99").val_dataloader()
