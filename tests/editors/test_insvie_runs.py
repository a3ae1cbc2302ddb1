"""The InsViE editor in runs: it learns, delivers what it learned, and resumes and chains exactly."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.save_editor import SaveEditor
from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_lightning.batch import EditBatch, EditedVideos, Position
from insvie_lightning.diffusion.conditioning import ConditionDropout
from insvie_lightning.editors import InsViE
from insvie_lightning.errors import InputError
from insvie_lightning.nets.perceptual import PerceptualLoss
from insvie_lightning.weights.deliverable import load_deliverable, load_trainable, save_deliverable, trainable_weights

Make = Callable[..., InsViE]
Fit = Callable[..., None]
SQUEEZE = PerceptualLoss(net="squeeze", random_trunk=True, latent_frames=2, crop=None, first_only=False)
NO_DROPOUT = ConditionDropout(0.0, 0.0)


@pytest.fixture(scope="module")
def trained(make_editor: Make, batch: EditBatch, fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An editor after 30 steps on one batch, its run folder, and its mean loss at fixed draws before and after."""
    editor, folder = make_editor(condition_dropout=NO_DROPOUT), tmp_path_factory.mktemp("trained")
    frozen = {name: p.clone() for name, p in editor.named_parameters() if not p.requires_grad}
    before = mean_loss(editor, batch)
    loader = DataLoader([batch] * 30, batch_size=None)
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_train_steps=30)
    fit(editor, loader, folder, LoraEMA(0.9), SaveEditor(), checkpoint)
    return SimpleNamespace(editor=editor, folder=folder, before=before, after=mean_loss(editor, batch), frozen=frozen)


@torch.no_grad()
def mean_loss(editor: InsViE, batch: EditBatch) -> float:
    draws = [replace(batch, position=Position("fixed", 0, step)) for step in range(8)]
    return float(torch.stack([editor.training_step(draw, 0) for draw in draws]).mean())


def assert_equal(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> None:
    assert one is not None and other is not None and one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_training_lowers_the_loss(trained: SimpleNamespace) -> None:
    assert trained.after < 0.8 * trained.before


def test_frozen_networks_are_not_trained(trained: SimpleNamespace) -> None:
    now = dict(trained.editor.named_parameters())
    assert any(name.startswith("vae.") for name in trained.frozen)
    assert any(name.startswith("text_encoder.") for name in trained.frozen)
    assert_equal(trained.frozen, {name: now[name] for name in trained.frozen})
    assert not trained.editor.vae.training and not trained.editor.text_encoder.training


def test_checkpoints_hold_the_trained_weights_only(trained: SimpleNamespace) -> None:
    path = trained.folder / "checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    names = {name for name in state if name.startswith("transformer.transformer_blocks.") and ".lora_" in name}
    assert len(names) == 2 * 4 * 2
    assert state.keys() == names | {"transformer.patch_embed.proj.weight", "transformer.patch_embed.proj.bias"}
    trained_bytes = 4 * sum(value.numel() for value in state.values())
    # Raw weights, their average and two moments of Adam; the frozen networks would be 2.4 MB more.
    assert path.stat().st_size < 4 * trained_bytes + 100_000
    assert sum(4 * value.numel() for value in trained.frozen.values()) > 2_000_000


# ---------------------------------------------------------------- deliverable


def test_from_pretrained_edits_as_the_trained_editor(trained: SimpleNamespace, batch: EditBatch) -> None:
    editor, weights = trained.editor, trained.folder / "weights"
    raw = editor.edit_batch(batch)
    assert torch.equal(InsViE.from_pretrained(weights, use_ema=False).edit_batch(batch), raw)
    backup = {name: value.clone() for name, value in trainable_weights(editor.transformer).items()}
    load_trainable(editor.transformer, editor.ema, "the average")
    averaged = editor.edit_batch(batch)
    load_trainable(editor.transformer, backup, "the backup")
    assert not torch.allclose(raw, averaged, atol=1e-3)
    again = InsViE.from_pretrained(weights)
    assert torch.equal(again.edit_batch(batch), averaged)
    assert not again.training
    assert (again.guidance, again.num_inference_steps, again.sampler) == (editor.guidance, 2, "ddim")


@pytest.mark.parametrize("use_ema", [True, False])
def test_test_and_predict_take_the_average_of_start_from(
    trained: SimpleNamespace, make_editor: Make, batch: EditBatch, base: Path, use_ema: bool, tmp_path: Path
) -> None:
    weights = trained.folder / "weights"
    editor = InsViE(
        base=str(base), start_from=weights, lora_rank=4, lora_alpha=4.0, guidance=trained.editor.guidance,
        num_inference_steps=2, sampler="ddim", use_ema=use_ema,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    outputs = trainer.predict(editor, DataLoader([batch], batch_size=None))
    assert outputs is not None and isinstance(outputs[0], EditedVideos)
    expected = InsViE.from_pretrained(weights, use_ema=use_ema).edit_batch(batch)
    assert torch.equal(outputs[0].edited, expected)


def test_a_test_gives_every_frame_back(make_editor: Make, batch: EditBatch) -> None:
    assert batch.source is not None
    longer = replace(batch, source=torch.cat([batch.source, batch.source[:, :3]], 1), edited=None)
    assert make_editor().test_step(longer, 0).edited.shape == (4, 8, 3, 32, 48)


@pytest.mark.parametrize("use_ema", [True, False])
def test_an_editor_is_whole_before_it_is_placed(make_editor: Make, base: Path, use_ema: bool) -> None:
    editor = InsViE(base=str(base), lora_rank=4, use_ema=use_ema)
    editor.setup("predict")
    assert editor.transformer is not None and editor.text_encoder is not None


def test_half_precision_is_trained_with_clipped_gradients(
    make_editor: Make, toy_shards: Path, fit: Fit, tmp_path: Path
) -> None:
    editor = make_editor(random_weights=True)
    before = {name: value.clone() for name, value in trainable_weights(editor.transformer).items()}
    fused: list[bool] = []
    editor.on_before_optimizer_step = lambda optimizer: fused.append(optimizer.param_groups[0]["fused"])  # type: ignore[method-assign]
    fit(editor, curriculum(toy_shards, S1), tmp_path, LoraEMA(0.9), precision="bf16-mixed")
    assert fused == [True] * 4
    after = trainable_weights(editor.transformer)
    assert all(value.isfinite().all() and not torch.equal(value, before[name]) for name, value in after.items())


def test_start_from_carries_raw_and_averaged_weights_on(trained: SimpleNamespace, make_editor: Make) -> None:
    editor = make_editor(start_from=trained.folder / "weights")
    assert_equal(trainable_weights(editor.transformer), trainable_weights(trained.editor.transformer))
    assert_equal(editor.ema, trained.editor.ema)
    assert editor.ema_updates == trained.editor.ema_updates == 30


def test_keyword_arguments_override_the_stored_settings(trained: SimpleNamespace) -> None:
    editor = InsViE.from_pretrained(trained.folder / "weights", num_inference_steps=7, sampler="dpm")
    assert (editor.num_inference_steps, editor.sampler, editor.lora_rank) == (7, "dpm", 4)


@pytest.mark.parametrize(("name", "value"), [("lora_rank", 8), ("lora_alpha", 8.0), ("trainable", "all")])
def test_weights_of_another_lora_are_one_sentence(
    trained: SimpleNamespace, make_editor: Make, name: str, value: object
) -> None:
    with pytest.raises(InputError, match=rf"were made with {name} .*, this run has .*: set --model.{name}="):
        make_editor(start_from=trained.folder / "weights", **{name: value})


def test_weights_that_bring_their_base_are_not_put_on_another(
    trained: SimpleNamespace, make_editor: Make, base: Path, tmp_path: Path
) -> None:
    made = trained.editor.deliverable()
    shutil.copytree(base, tmp_path / "base")
    save_deliverable(replace(made, settings={**made.settings, "base": "./base"}), tmp_path)
    with pytest.raises(InputError, match=r"were made with base .*: set --model.base="):
        make_editor(start_from=tmp_path)
    make_editor(start_from=tmp_path, base=str(tmp_path / "base"))


def test_without_an_average_raw_weights_are_delivered(make_editor: Make, tmp_path: Path, batch: EditBatch) -> None:
    editor = make_editor(random_weights=True)
    save_deliverable(editor.deliverable(), tmp_path)
    assert torch.equal(InsViE.from_pretrained(tmp_path).edit_batch(batch), editor.edit_batch(batch))


# ---------------------------------------------------------------- resume and chain


S1, S2 = Stage("s1", 4), Stage("s2", 4, where="origin != 'pair'")
SETTINGS = {"lr_schedule": "cosine", "warmup_steps": 2, "perceptual": SQUEEZE, "seed": 3}


def curriculum(shards: Path, *stages: Stage) -> Curriculum:
    return Curriculum(shards, list(stages), batch_size=2, frames=5, size=(32, 48))


@pytest.fixture(scope="module")
def straight(
    make_editor: Make, toy_shards: Path, fit: Fit, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Both stages in one run, the second with LPIPS; checkpoints after every second step."""
    editor, folder = make_editor(lpips_weight=[0, 0.5], **SETTINGS), tmp_path_factory.mktemp("straight")
    checkpoints = ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=2, save_top_k=-1)
    fit(editor, curriculum(toy_shards, S1, S2), folder, LoraEMA(0.9), SaveEditor(), checkpoints)
    return SimpleNamespace(folder=folder, weights=load_deliverable(folder / "weights"))


@pytest.mark.parametrize("step", [2, 4, 6], ids=["first stage", "border", "second stage"])
def test_a_resumed_run_ends_with_the_same_weights(
    straight: SimpleNamespace, make_editor: Make, toy_shards: Path, fit: Fit, tmp_path: Path, step: int
) -> None:
    editor = make_editor(lpips_weight=[0, 0.5], **SETTINGS)
    fit(
        editor, curriculum(toy_shards, S1, S2), tmp_path, LoraEMA(0.9), SaveEditor(),
        resume=straight.folder / f"checkpoints/step={step}.ckpt",
    )  # fmt: skip
    again = load_deliverable(tmp_path / "weights")
    assert_equal(again.raw, straight.weights.raw)
    assert_equal(again.ema, straight.weights.ema)
    assert again.ema_updates == straight.weights.ema_updates == 8


def test_one_run_of_two_stages_is_the_chain_of_two_runs(
    straight: SimpleNamespace, make_editor: Make, toy_shards: Path, fit: Fit, tmp_path: Path
) -> None:
    first, second = tmp_path / "s1", tmp_path / "s2"
    fit(make_editor(**SETTINGS), curriculum(toy_shards, S1), first, LoraEMA(0.9), SaveEditor())
    editor = make_editor(lpips_weight=0.5, start_from=first / "weights", **SETTINGS)
    fit(editor, curriculum(toy_shards, S2), second, LoraEMA(0.9), SaveEditor())
    chained = load_deliverable(second / "weights")
    assert_equal(chained.raw, straight.weights.raw)
    assert_equal(chained.ema, straight.weights.ema)
    assert chained.ema_updates == straight.weights.ema_updates == 8


def test_the_learning_rate_restarts_with_every_stage(
    make_editor: Make, toy_shards: Path, fit: Fit, tmp_path: Path
) -> None:
    editor, rates = make_editor(lpips_weight=0, **SETTINGS), []
    editor.on_before_optimizer_step = lambda optimizer: rates.append(optimizer.param_groups[0]["lr"])  # type: ignore[method-assign]
    fit(editor, curriculum(toy_shards, S1, S2), tmp_path)
    # Two steps of linear warm-up, then half a cosine over the two that are left.
    assert rates == pytest.approx([0, 0.005, 0.01, 0.005] * 2)
