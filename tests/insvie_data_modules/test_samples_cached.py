"""What the data modules make of cached latents: windows, the source's pixels, and refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_data_modules.samples import Form, Place, check_cache, load_rows, read_sample
from insvie_data_modules.shard_set import ShardSet
from insvie_lightning.batch import EditBatch
from insvie_lightning.errors import InputError
from insvie_lightning.shards.latents import LATENTS, LatentRecipe, pack_latents
from insvie_lightning.shards.record import describe
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, example_of_key, to_triplet
from insvie_lightning.video import encode_clip

RECIPE = LatentRecipe("abc", 9, (64, 96), "cover", "float32")


def numbered(key: int) -> dict[str, torch.Tensor]:
    """Latents whose values say where they lie."""
    grid = torch.arange(8.0).reshape(-1, 1) * 100 + torch.arange(12.0)
    whole = grid.expand(3, 16, 8, 12) + 10_000 * key
    return {"source": whole, "edited": -whole}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of 9 frames, 64 x 96, with both videos."""
    folder = tmp_path_factory.mktemp("cache")
    with ShardWriter(folder, shard_size=4) as writer:
        for key in range(4):
            triplet = to_triplet(example("train", key), frames=9, height=64, width=96)
            clips = {"source.mp4": triplet.source, "edited.mp4": triplet.edited}
            videos = {name: encode_clip(clip, lossless=True) for name, clip in clips.items()}
            members = {**videos, LATENTS: pack_latents(numbered(key), RECIPE)}
            writer.write_members(describe(triplet), members)
    return folder


def row(folder: Path, number: int = 0) -> dict[str, Any]:
    return load_rows(folder).slice(number, 1).to_pylist()[0]


@pytest.mark.parametrize(
    ("place", "corner"), [((0.0, 0.0, 0.0), (0, 0)), ((0.0, 1.0, 0.0), (4, 0)), ((0.0, 0.5, 1.0), (2, 6))]
)
def test_one_window_is_cut_out_of_both_latents(cache: Path, place: Place, corner: tuple[int, int]) -> None:
    tensors = read_sample(row(cache), Form(9, (32, 48), "crop"), place).tensors
    assert tensors.keys() == {"source_latents", "edited_latents"}
    top, left = corner
    for side, whole in numbered(0).items():
        assert torch.equal(tensors[f"{side}_latents"], whole[..., top : top + 4, left : left + 6])


def test_every_window_of_the_grid_is_drawn(cache: Path) -> None:
    data = Curriculum(cache, [Stage("s1", 100)], batch_size=4, frames=9, size=(32, 48))
    corners = {int(v) % 10_000 for batch in data.train_dataloader() for v in batch.source_latents[:, 0, 0, 0, 0]}
    assert corners == {100 * top + left for top in range(5) for left in range(7)}


def test_the_source_s_pixels_come_whole_with_their_window(cache: Path) -> None:
    form = Form(9, (32, 48), "crop", source_pixels=True)
    sample = read_sample(row(cache), form, (0.0, 1.0, 0.5))
    triplet = to_triplet(example("train", 0), frames=9, height=64, width=96)
    assert torch.equal(sample.tensors["source"], torch.from_numpy(triplet.source.frames))
    assert sample.tensors["source_latents"].shape == (3, 16, 4, 6)
    assert sample.window == (4, 3, 4, 6)


def test_pixels_are_read_for_a_model_that_adds_noise_to_them(cache: Path) -> None:
    data = Curriculum(cache, [Stage("s1", 1)], batch_size=2, frames=9, size=(32, 48))
    for noise in (False, True):
        data.trainer = trainer(source_noise=noise)
        (batch,) = data.train_dataloader()
        assert (batch.source is not None) is noise
        assert len(batch.windows) == 2 * noise


def test_edited_pixels_are_read_in_stages_whose_loss_compares_with_them(cache: Path) -> None:
    stages = [Stage("s1", 1), Stage("s2", 1)]
    data = Curriculum(cache, stages, batch_size=2, frames=9, size=(32, 48))
    data.trainer = trainer(compares_pixels=lambda stage: stage == 1)
    first, second = data.train_dataloader()
    assert first.edited is None and first.windows == ()
    assert second.source is None and second.edited.shape == (2, 9, 3, 64, 96) and len(second.windows) == 2
    for key, clip in zip(second.keys, second.edited, strict=True):
        assert torch.equal(clip, torch.from_numpy(to_triplet(example_of_key(key), 9, 64, 96).edited.frames))
    data.trainer = trainer(compares_pixels=lambda stage: stage == 1, identity_pairs=0.1)
    first, second = data.train_dataloader()
    assert first.source is None and second.source.shape == second.edited.shape
    data.val_shards, data.val_samples = cache, 2
    (batch,) = data.val_dataloader()
    assert batch.edited is None and batch.edited_latents is not None


def write_cache(folder: Path, posterior: str, extra: tuple[str, ...] = ()) -> Path:
    recipe = replace(RECIPE, posterior=posterior)
    with ShardWriter(folder, shard_size=4) as writer:
        for key in range(2):
            triplet = to_triplet(example("train", key), frames=9, height=64, width=96)
            sides = numbered(key)
            more = {f"{side}_log_variance": values + 0.5 for side, values in sides.items()}
            more |= {"noise_shift": torch.full((4, 2, 2, 16), float(key))}
            latents = {**sides, **{name: more[name] for name in extra}}
            writer.write_members(describe(triplet), {LATENTS: pack_latents(latents, recipe)})
    return folder


def test_moments_and_the_effect_of_noise_are_read(tmp_path: Path) -> None:
    names = ("source_log_variance", "edited_log_variance", "noise_shift")
    data = Curriculum(write_cache(tmp_path, "moments", names), [Stage("s1", 1)], batch_size=2, frames=9, size=(32, 48))
    for noise in (False, True, "latents"):
        data.trainer = trainer(source_noise=noise)
        (batch,) = data.train_dataloader()
        assert torch.equal(batch.source_log_variance, batch.source_latents + 0.5)
        assert torch.equal(batch.edited_log_variance, batch.edited_latents + 0.5)
        assert batch.source is None and (batch.noise_shift is not None) is (noise == "latents")
    keys = [int(value) // 10_000 for value in batch.source_latents[:, 0, 0, 0, 0]]
    assert batch.noise_shift[:, 0, 0, 0, 0].tolist() == keys


def test_noise_that_was_not_measured_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data = Curriculum(write_cache(tmp_path, "mean"), [Stage("s1", 1)], batch_size=2, frames=9, size=(32, 48))
    data.trainer = trainer(source_noise="latents")
    with pytest.raises(InputError, match=r"the effect of noise on the latents in .* was not measured; encode again"):
        data.train_dataloader()


def test_moments_and_means_do_not_share_a_stage(tmp_path: Path) -> None:
    moments = write_cache(tmp_path / "a", "moments", ("source_log_variance", "edited_log_variance"))
    rows = load_rows([moments, write_cache(tmp_path / "b", "mean")])
    with pytest.raises(InputError, match=r"there are the mean in .*b and the moments in .*a"):
        check_cache(rows, Form(9, (64, 96), "cover"), None)


def test_clips_may_be_left_whole(cache: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, shard_size=4, lossless=True) as writer:
        for key in range(2):
            writer.write(to_triplet(example("train", key), frames=9, height=64, width=96))
    stages = [Stage("s1", 3)]
    data = Curriculum(tmp_path, stages, batch_size=2, frames=9, size=(32, 48), crop_latents=True)
    batches: list[EditBatch] = list(data.train_dataloader())
    cached = list(Curriculum(cache, stages, batch_size=2, frames=9, size=(32, 48)).train_dataloader())
    for batch, other in zip(batches, cached, strict=True):
        assert batch.source.shape == batch.edited.shape == (2, 9, 3, 64, 96)
        corners = [int(v) % 10_000 for v in other.source_latents[:, 0, 0, 0, 0]]
        assert [100 * top + left for top, left, *_ in batch.windows] == corners  # the windows are those of the cache


def test_only_windows_can_be_left_to_the_latents(cache: Path) -> None:
    with pytest.raises(InputError, match="crop_latents cuts windows, but resize is 'cover'"):
        Curriculum(cache, resize="cover", crop_latents=True)


def trainer(**model: Any) -> Any:
    named = SimpleNamespace(working_shape=(9, 64, 96), **model)
    return SimpleNamespace(
        lightning_module=named, accumulate_grad_batches=1, distributed_sampler_kwargs=None, default_root_dir="."
    )


@pytest.mark.parametrize(
    ("form", "encoder", "said"),
    [
        ({"frames": 9}, "other", "were made by the autoencoder abc, the model has other"),
        ({"frames": 5}, "abc", "are of 9 frames, the run is of 5"),
        ({"frames": 9, "size": (32, 48), "resize": "cover"}, "abc", "are of 64x96 pixels, the run is of 32x48"),
    ],
)
@pytest.mark.parametrize("kind", ["train", "val"])
def test_stale_latents_are_refused_before_the_first_step(
    cache: Path, form: dict[str, Any], encoder: str, said: str, kind: str
) -> None:
    settings = {"size": (64, 96), **form}
    data: Any = ShardSet(cache, **settings) if kind == "val" else Curriculum(cache, [Stage("s1", 1)], **settings)
    data.trainer = trainer(encoder_hash=encoder)
    with pytest.raises(InputError, match=said):
        getattr(data, f"{kind}_dataloader")()


def test_every_folder_is_checked(cache: Path, tmp_path: Path, make_clip: Callable[..., Any]) -> None:
    with ShardWriter(tmp_path / "other", shard_size=4) as writer:
        for key in range(4, 6):
            triplet = to_triplet(example("train", key), frames=9, height=64, width=96)
            recipe = LatentRecipe("abc", 5, (64, 96), "cover", "float32")
            writer.write_members(describe(triplet), {LATENTS: pack_latents(numbered(key), recipe)})
    rows = load_rows([cache, tmp_path / "other"])
    check_cache(rows[:4], Form(9, (64, 96), "cover"), None)
    with pytest.raises(InputError, match=r"other are of 5 frames, the run is of 9"):
        check_cache(rows, Form(9, (64, 96), "cover"), None)
