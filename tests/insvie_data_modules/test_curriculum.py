"""The curriculum: ratio, order over ranks and workers, stages, resume, bad samples."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint

from insvie_callbacks.run_checkpoint import RunCheckpoint
from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_data_modules.stages import RankSampler
from insvie_lightning.batch import EditBatch, Position, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.index import index
from insvie_lightning.video import encode_clip


def curriculum(shards: Path | list[Path], *stages: Stage, **options: Any) -> Curriculum:
    return Curriculum(shards, list(stages), **{"batch_size": 6, "frames": 3, "size": (16, 24), **options})


def batches(data: Curriculum) -> list[EditBatch]:
    return list(data.train_dataloader())


def keys(data: Curriculum) -> list[str]:
    return [key for batch in batches(data) for key in batch.keys]


def rank_keys(data: Curriculum, world: int, rank: int) -> list[list[str]]:
    """The keys of every batch of one rank."""
    dataset: Any = data.train_dataloader().dataset
    drawn = [dataset[number][1].key for number in RankSampler(dataset, world, rank)]
    return [drawn[i : i + data.batch_size] for i in range(0, len(drawn), data.batch_size)]


class Recorder(pl.LightningModule):
    """Trains one number and remembers what it was fed; fails before optimizing batch `fail_at`."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fail_at = fail_at
        self.seen: list[tuple[Position, tuple[str, ...], int]] = []

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        if batch_idx == self.fail_at:
            raise RuntimeError("power cut")
        assert batch.position is not None
        checksum = 0 if batch.source is None else int(batch.source.sum())
        self.seen.append((batch.position, batch.keys, checksum))
        return self.weight.sum()

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        assert batch.position is None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: Curriculum, folder: Path, model: Recorder, resume: Path | None = None, **options: Any) -> Recorder:
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model


def every(steps: int, folder: Path, on_exception: bool = False) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=steps, save_top_k=-1, save_on_exception=on_exception)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_ratio_is_exact_over_any_window(latents: Path, workers: int) -> None:
    data = curriculum(latents, Stage("s3", 110, static_to_real="5:1"), num_workers=workers)
    origins = [origin for batch in batches(data) for origin in batch.origins]
    assert len(origins) == 660
    static = np.array([origin == "static" for origin in origins])
    windows = np.convolve(static, np.ones(6), "valid")
    assert (windows == 5).all()
    assert static[:600].sum() == static[60:].sum() == 500


def test_pairs_count_as_real_unless_told_otherwise(latents: Path) -> None:
    stage = Stage("s3", 8, static_to_real="1:2")
    with_pairs = Counter(origin for batch in batches(curriculum(latents, stage)) for origin in batch.origins)
    assert with_pairs == {"static": 16, "real": 24, "pair": 8}
    without = batches(curriculum(latents, stage, real_includes_pairs=False))
    assert Counter(origin for batch in without for origin in batch.origins) == {"static": 16, "real": 32}


def test_batches_are_the_same_for_any_number_of_workers(shards: Path) -> None:
    stage = Stage("s", 7, static_to_real=0.5)
    one, two, three = (batches(curriculum(shards, stage, num_workers=workers)) for workers in (0, 1, 2))
    for first, second, third in zip(one, two, three, strict=True):
        assert first.keys == second.keys == third.keys
        assert first.position == second.position == third.position
        assert torch.equal(first.source, second.source) and torch.equal(first.source, third.source)  # type: ignore[arg-type]


def test_ranks_share_the_order_without_loss_or_duplication(latents: Path) -> None:
    stages = Stage("a", 4, static_to_real="5:1"), Stage("b", 2)
    order = keys(curriculum(latents, *stages, batch_size=6))
    data = curriculum(latents, *stages, batch_size=3)
    data.trainer = _pretend_ranks(2)
    first, second = (rank_keys(data, world=2, rank=rank) for rank in range(2))
    assert len(first) == len(second) == 6
    for step, (left, right) in enumerate(zip(first, second, strict=True)):
        window = order[step * 6 : step * 6 + 6]
        assert left == window[0::2] and right == window[1::2]


def test_every_sample_comes_once_per_epoch_in_another_order(latents: Path) -> None:
    drawn = keys(curriculum(latents, Stage("s", 12)))
    assert sorted(drawn[:36]) == sorted(drawn[36:]) == sorted(set(drawn))
    assert drawn[:36] != drawn[36:]
    assert keys(curriculum(latents, Stage("s", 12))) == drawn
    assert keys(curriculum(latents, Stage("s", 12), seed=1)) != drawn


def test_a_batch_knows_its_stage_and_never_spans_two(latents: Path) -> None:
    data = curriculum(latents, Stage("low", 2, where="judge < 10"), Stage("high", 3, where="judge >= 10"))
    assert [batch.position for batch in batches(data)] == [
        *(Position("low", 0, step) for step in range(2)),
        *(Position("high", 1, step) for step in range(3)),
    ]
    low = {key for batch in batches(data)[:2] for key in batch.keys}
    assert all(int(key[-2:]) < 10 for key in low)


def test_a_stage_draws_the_same_alone_as_in_a_curriculum(shards: Path) -> None:
    alone = batches(curriculum(shards, Stage("s2", 3)))
    chained = batches(curriculum(shards, Stage("s1", 2), Stage("s2", 3)))[2:]
    for first, second in zip(alone, chained, strict=True):
        assert first.keys == second.keys and torch.equal(first.source, second.source)  # type: ignore[arg-type]


def test_both_clips_are_cut_alike_and_not_always_at_one_place(shards: Path) -> None:
    found = batches(curriculum(shards, Stage("s", 6)))
    corners = set()
    for batch in found:
        assert batch.source is not None and batch.edited is not None
        assert batch.source.shape == (6, 3, 3, 16, 24) and batch.source.dtype == torch.uint8
        assert torch.equal(255 - batch.source, batch.edited)
        corners |= {tuple(pixel.tolist()) for pixel in batch.source[:, 0, :, 0, 0]}
    rows, columns, frames = (set(axis) for axis in zip(*corners, strict=True))
    assert len(rows) > 5 and len(columns) > 5 and frames == {0, 1}


def test_stages_have_shards_of_their_own_and_folders_add_up(
    make_shards: Callable[..., Path], make_triplet: Callable[..., Triplet]
) -> None:
    first, second = make_shards([make_triplet("a"), make_triplet("b")]), make_shards([make_triplet("c")])
    data = curriculum([first, second], Stage("both", 1), Stage("one", 1, shards=str(second)), batch_size=3)
    both, one = batches(data)
    assert set(both.keys) == {"a", "b", "c"} and set(one.keys) == {"c"}


def test_cached_latents_are_fed_instead_of_pixels(latents: Path) -> None:
    batch = batches(curriculum(latents, Stage("s", 1)))[0]
    assert batch.source is None and batch.edited is None
    assert batch.source_latents is not None and batch.edited_latents is not None
    assert batch.source_latents.shape == (6, 2, 16, 2, 3) and batch.source_latents.dtype == torch.float32
    assert torch.equal(batch.source_latents, -batch.edited_latents)
    assert batch.source_latents[:, 0, 0, 0, 0].tolist() == [float(key[-2:]) for key in batch.keys]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_fit_equals_a_straight_one(shards: Path, tmp_path: Path, workers: int) -> None:
    def data() -> Curriculum:
        stages = Stage("a", 3, static_to_real="5:1"), Stage("b", 4)
        return curriculum(shards, *stages, batch_size=2, num_workers=workers)

    straight = fit(data(), tmp_path, Recorder(), accumulate_grad_batches=2)
    assert [seen[0].step for seen in straight.seen] == [*range(6), *range(8)]
    with pytest.raises(RuntimeError, match="power cut"):
        fit(
            data(), tmp_path, Recorder(fail_at=11), accumulate_grad_batches=2,
            enable_checkpointing=True, callbacks=[every(2, tmp_path)],
        )  # fmt: skip
    for step in (2, 4):
        resumed = fit(data(), tmp_path, Recorder(), tmp_path / f"step={step}.ckpt", accumulate_grad_batches=2)
        assert resumed.seen == straight.seen[2 * step :]


def test_a_fit_resumes_from_the_checkpoint_of_its_crash(latents: Path, tmp_path: Path) -> None:
    straight = fit(curriculum(latents, Stage("a", 6)), tmp_path, Recorder())
    saving = every(100, tmp_path, on_exception=True)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(curriculum(latents, Stage("a", 6)), tmp_path, Recorder(4), enable_checkpointing=True, callbacks=[saving])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    resumed = fit(curriculum(latents, Stage("a", 6)), tmp_path, Recorder(), checkpoint)
    assert resumed.seen == straight.seen[4:]


def test_a_resumed_run_must_keep_its_order(latents: Path, tmp_path: Path) -> None:
    checkpoints = every(2, tmp_path)
    fit(curriculum(latents, Stage("a", 4)), tmp_path, Recorder(), enable_checkpointing=True, callbacks=[checkpoints])
    checkpoint = tmp_path / "step=2.ckpt"
    with pytest.raises(InputError, match="the run to resume drew other samples or in another order"):
        fit(curriculum(latents, Stage("a", 4), seed=1), tmp_path, Recorder(), checkpoint)
    with pytest.raises(InputError, match="the run to resume had 6 samples in an optimizer step, this one has 3"):
        fit(curriculum(latents, Stage("a", 4), batch_size=3), tmp_path, Recorder(), checkpoint)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(6, 1), (2, 3), (1, 6)])
def test_a_resumed_run_may_cut_its_steps_into_other_batches(
    latents: Path, tmp_path: Path, batch_size: int, accumulate: int
) -> None:
    stages = Stage("a", 3, static_to_real="5:1"), Stage("b", 4)
    saving = {"enable_checkpointing": True, "accumulate_grad_batches": 2}
    straight = fit(
        curriculum(latents, *stages, batch_size=3), tmp_path, Recorder(), callbacks=[RunCheckpoint(2, keep=9)], **saving
    )
    for step in (2, 4):
        data, path = curriculum(latents, *stages, batch_size=batch_size), tmp_path / f"checkpoints/step={step}.ckpt"
        again = {**saving, "accumulate_grad_batches": accumulate, "callbacks": [RunCheckpoint(100)]}
        resumed = fit(data, tmp_path / "more", Recorder(), path, **again)
        drawn = [key for _, batch_keys, _ in resumed.seen for key in batch_keys]
        assert drawn == [key for _, batch_keys, _ in straight.seen[2 * step :] for key in batch_keys]
        assert len(resumed.seen) == (7 - step) * accumulate


def test_only_a_checkpoint_that_knows_its_last_step_is_resumed(latents: Path, tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2, "enable_checkpointing": True}
    saving = every(100, tmp_path, on_exception=True)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(curriculum(latents, Stage("a", 6)), tmp_path, Recorder(5), callbacks=[saving], **options)
    (checkpoint,) = tmp_path.glob("*.ckpt")
    with pytest.raises(InputError, match="saved between two optimizer steps"):
        fit(curriculum(latents, Stage("a", 6)), tmp_path, Recorder(), checkpoint, accumulate_grad_batches=2)


def test_validation_reads_its_own_shards(shards: Path, tmp_path: Path) -> None:
    data = curriculum(shards, Stage("a", 1), val_shards=shards, val_samples=8)
    found: list[EditBatch] = list(data.val_dataloader())  # type: ignore[arg-type]
    assert [len(batch) for batch in found] == [6, 2]
    fit(data, tmp_path, Recorder())


def test_to_validate_nothing_is_refused(shards: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(InputError, match=r"nothing to validate: name a shard folder with --data.val_shards DIR"):
        trainer.validate(Recorder(), curriculum(shards, Stage("s", 1)))


def test_a_bad_sample_is_set_aside_and_replaced(broken_shards: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, broken = broken_shards
    data = curriculum(folder, Stage("s", 12, static_to_real="1:1"), max_bad_rate=0.5)
    model = fit(data, tmp_path, Recorder())
    drawn = [key for _, batch_keys, _ in model.seen for key in batch_keys]
    assert len(drawn) == 72 and not set(drawn) & broken
    assert sum(key.startswith("static") for key in drawn) == 36  # the ratio holds with replacements, too
    records = [json.loads(line) for line in (tmp_path / "quarantine-rank0.jsonl").read_text().splitlines()]
    assert {record["key"] for record in records} == broken and len(records) == len(broken)
    assert all(record["reason"] for record in records)


def test_bad_samples_change_nothing_between_workers(
    broken_shards: tuple[Path, set[str]], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage("s", 6, static_to_real="1:1")
    runs = [keys(curriculum(broken_shards[0], stage, max_bad_rate=0.9, num_workers=n)) for n in (0, 2)]
    assert runs[0] == runs[1]


def test_a_short_clip_is_padded_only_when_asked(
    make_shards: Callable[..., Path], make_triplet: Callable[..., Triplet], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_shards([make_triplet("a")])
    with pytest.raises(InputError, match="no all sample that can be read"):
        batches(curriculum(folder, Stage("s", 1), frames=6))
    batch = batches(curriculum(folder, Stage("s", 1), frames=6, pad_short=True))[0]
    assert batch.source is not None
    assert batch.source[0, :, 2, 0, 0].tolist() == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (Stage("s", 1, where="judge > 99"), r"stage 's' needs samples, but .* selects 0 real, 0 pair, 0 static"),
        (
            Stage("s", 1, where="origin != 'static'", static_to_real="5:1"),
            r"static:real = 5:1.*12 real, 4 pair, 0 static",
        ),
        (Stage("s", 1, static_to_real=301.0), "write '5:1'"),
        (Stage("s", 0), "steps: 0; legal is 1 or more"),
    ],
)
def test_an_illegal_stage_is_explained(shards: Path, stage: Stage, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        curriculum(shards, stage).train_dataloader()


def test_stages_need_names_of_their_own(shards: Path) -> None:
    with pytest.raises(InputError, match="2 stages are called 's'"):
        curriculum(shards, Stage("s", 1), Stage("s", 1))


def test_a_missing_folder_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no shard folder 'data/none'.*insvie shards convert .*--data.shards DIR"):
        curriculum(Path("data/none"), Stage("s", 1)).train_dataloader()


@pytest.mark.parametrize("folder", ["none", "shards"])
def test_what_is_wrong_with_the_data_is_said_before_weights_are_loaded(
    folder: str, shards: Path, tmp_path: Path
) -> None:
    class Heavy(Recorder):
        def configure_model(self) -> None:
            raise AssertionError("weights were loaded")

    data = curriculum(shards if folder == "shards" else tmp_path / folder, Stage("s", 1, where="judge > 99"))
    with pytest.raises(InputError, match=r"no shard folder|selects 0 real"):
        fit(data, tmp_path, Heavy())


def test_a_fit_says_what_it_trains_on(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        data = curriculum(shards, Stage("a", 2), Stage("b", 9, where="judge >= 30"))
        fit(data, tmp_path, Recorder(), max_steps=3, accumulate_grad_batches=2)
    said = [line for line in caplog.messages if line.startswith("stage ")]
    assert said == ["stage a: 2 steps of 12 of 36 samples", "stage b: 1 steps of 12 of 6 samples"]


def test_a_batch_has_samples(shards: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 0; legal is 1 or more"):
        curriculum(shards, Stage("s", 1), batch_size=0)


@pytest.mark.parametrize(("written", "folders"), [("[a, b]", ["a", "b"]), ("a", "a")])
def test_a_config_names_folders_and_stages(written: str, folders: list[str] | str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Curriculum, "data")
    stages = "[{name: s3, steps: 7, static_to_real: '5:1'}, {name: half, steps: 1, static_to_real: 0.5}]"
    parsed = parser.parse_args([f"--data.shards={written}", f"--data.stages={stages}", "--data.size=[16, 24]"])
    data = parser.instantiate(parsed).data
    assert data.shards == folders and data.form.size == (16, 24)
    assert data.stages == [Stage("s3", 7, static_to_real="5:1"), Stage("half", 1, static_to_real=0.5)]


def _pretend_ranks(world: int) -> Any:
    class Pretend:
        distributed_sampler_kwargs = {"num_replicas": world, "rank": 0}  # noqa: RUF012
        accumulate_grad_batches = 1
        default_root_dir = "."
        lightning_module = None

    return Pretend()


def test_a_run_reads_published_zips_where_they_lie(tmp_path: Path, make_clip: Callable[..., Any]) -> None:
    names = [f"{'pexel-static-' if number % 3 else 'openvid'}{number}.mp4" for number in range(9)]
    (tmp_path / "train.csv").write_text("video,instruct\n" + "".join(f"{name},invert it\n" for name in names))
    data = encode_clip(make_clip(), lossless=True)
    for side in ("source", "edited"):
        with zipfile.ZipFile(tmp_path / f"{side}.zip", "w") as archive:
            for name in names:
                archive.writestr(name, data)
    archive_path = tmp_path / "edited.zip"
    content = bytearray(archive_path.read_bytes())
    content[100] ^= 1  # in the first member
    archive_path.write_bytes(content)
    index(tmp_path)
    stage = Stage("s", 6, static_to_real="2:1")
    drawn = curriculum(tmp_path, stage, batch_size=3, max_bad_rate=0.5)
    model = fit(drawn, tmp_path / "run", Recorder())
    assert len(model.seen) == 6
    origins = [sum("static" in key for key in keys) for _, keys, _ in model.seen]
    assert origins == [2] * 6
    bad = [json.loads(line) for line in (tmp_path / "run" / "quarantine-rank0.jsonl").read_text().splitlines()]
    assert [line["key"] for line in bad] == ["openvid0"]
    assert bad[0]["reason"] == f"{archive_path}: the member at byte 0 is damaged"
    assert "openvid0" not in {key for _, keys, _ in model.seen for key in keys}


def test_what_is_left_open_is_what_the_model_was_made_for(shards: Path, tmp_path: Path) -> None:
    class Made(Recorder):
        working_shape = (3, 16, 24)

        def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
            assert batch.source is not None and batch.source.shape == (6, 3, 3, 16, 24)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
            assert batch.source is not None and batch.source.shape[1:] == (3, 3, 16, 24)

    given, left_open = Made(), Made()
    fit(curriculum(shards, Stage("s", 3)), tmp_path, given)
    fit(curriculum(shards, Stage("s", 3), frames=None, size=None, val_shards=shards), tmp_path, left_open)
    assert left_open.seen == given.seen and len(given.seen) == 3
    with pytest.raises(InputError, match=r"Recorder does not say which; give --data\.frames and --data\.size"):
        fit(curriculum(shards, Stage("s", 3), size=None), tmp_path, Recorder())


def test_a_rehearsal_has_a_share_of_the_steps() -> None:
    stages = [Stage("a", steps=2000), Stage("b", steps=3, where="judge > 4")]
    data = Curriculum("unused", stages, steps_scale=0.05)
    assert data.stages == [Stage("a", steps=100), Stage("b", steps=1, where="judge > 4")]
    assert stages[0].steps == 2000
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="legal are numbers above 0"):
            Curriculum("unused", stages, steps_scale=scale)
    with pytest.raises(InputError, match="stage 'a' has steps: 0"):
        Curriculum("unused", [Stage("a", steps=0)], steps_scale=0.05)
