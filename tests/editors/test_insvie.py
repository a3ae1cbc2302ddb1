"""The InsViE editor, step by step: what its loss is made of, and how it edits a clip."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch, Position
from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.diffusion.conditioning import ConditionDropout
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import samples_of
from insvie_lightning.nets.execution import Execution
from insvie_lightning.nets.latents import encode_pixels, to_device_pixels
from insvie_lightning.nets.perceptual import PerceptualLoss
from insvie_lightning.weights.deliverable import trainable_weights

Make = Callable[..., InsViE]
SQUEEZE = PerceptualLoss(net="squeeze", random_trunk=True, latent_frames=2, crop=None, first_only=False)
NO_DROPOUT = ConditionDropout(0.0, 0.0)


def test_the_scheduler_is_the_base_s(make_editor: Make) -> None:
    for sampler in ("ddim", "dpm", "released"):
        editor = make_editor(sampler=sampler)
        signal = editor.scheduler.alphas_cumprod.sqrt()[[0, 500, 999]].float()
        torch.testing.assert_close(signal, torch.tensor([0.998726, 0.308752, 0]), atol=1e-6, rtol=0)
        assert editor.scheduler.config["timestep_spacing"] == "trailing"
        assert sampler in type(editor.scheduler).__name__.lower()


def test_the_loss_depends_on_seed_and_position_only(make_editor: Make, batch: EditBatch) -> None:
    def loss(position: Position, seed: int = 0) -> float:
        torch.rand(3)  # the global generator goes on
        editor = make_editor(seed=seed)
        with torch.no_grad():
            return float(editor.training_step(replace(batch, position=position), 99))

    first = loss(Position("s1", 0, 3))
    assert first == loss(Position("s1", 0, 3)) == loss(Position("s1", 1, 3))  # a stage's number says nothing
    assert len({first, loss(Position("s1", 0, 4)), loss(Position("s2", 0, 3)), loss(Position("s1", 0, 3), 1)}) == 4


def test_cached_latents_are_taken_as_they_are(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(condition_dropout=NO_DROPOUT)
    assert batch.source is not None and batch.edited is not None
    with torch.no_grad():
        source, edited = (encode_pixels(editor.vae, to_device_pixels(clip)) for clip in (batch.source, batch.edited))
        cached = EditBatch(batch.keys, batch.instructions, source_latents=source, edited_latents=edited)
        result, expected = editor.edit_batch(cached), editor.edit_batch(batch)
        torch.testing.assert_close(result, expected)
        assert editor.training_step(cached, 0).isfinite()


def test_lpips_needs_pixels(make_editor: Make) -> None:
    editor = make_editor(lpips_weight=0.5, perceptual=SQUEEZE)
    latents = torch.randn(2, 2, 16, 4, 6)
    cached = EditBatch(("a", "b"), ("x", "y"), source_latents=latents, edited_latents=latents)
    with pytest.raises(
        InputError, match=r"sample 'a' comes from cached latents alone; .* shards of videos, or encode with"
    ):
        editor.training_step(cached, 0)


def test_the_lpips_weight_of_the_stage_mixes_the_losses(make_editor: Make, batch: EditBatch) -> None:
    settings = {"condition_dropout": NO_DROPOUT, "perceptual": SQUEEZE}
    mixed, plain, pure = (make_editor(lpips_weight=w, **settings) for w in ([0.0, 0.25], 0.0, 1.0))

    def loss(editor: InsViE, stage: int) -> float:
        with torch.no_grad():
            return float(editor.training_step(replace(batch, position=Position("s", stage, 0)), 0))

    assert loss(mixed, 0) == loss(plain, 0)
    expected = 0.75 * loss(plain, 0) + 0.25 * loss(pure, 0)
    assert loss(mixed, 1) == loss(mixed, 5) == pytest.approx(expected)
    assert loss(pure, 0) != pytest.approx(loss(plain, 0), rel=0.01)


def test_noisy_samples_get_no_lpips(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(lpips_weight=1.0, perceptual=replace(SQUEEZE, max_timestep=0))
    assert editor.training_step(batch, 0) == 0


def test_dropped_conditions_are_counted(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(condition_dropout=ConditionDropout(1.0, 0.0))
    for step in range(3):
        editor.training_step(batch, step)
    assert editor.cells_seen.tolist() == [0, 12, 0, 0]


@torch.no_grad()
def test_dropped_conditions_do_not_reach_the_network(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(condition_dropout=ConditionDropout(1.0, 1.0), random_weights=True)
    other = replace(batch, instructions=batch.instructions[::-1], source=batch.source.flip(0))  # type: ignore[union-attr]
    assert editor.training_step(batch, 0) == editor.training_step(other, 0)
    editor.condition_dropout = NO_DROPOUT
    assert editor.training_step(batch, 0) != editor.training_step(other, 0)


@torch.no_grad()
def test_source_noise_is_for_training_only(make_editor: Make, batch: EditBatch) -> None:
    plain, noisy = (
        make_editor(source_noise=noise, condition_dropout=NO_DROPOUT, random_weights=True) for noise in (False, True)
    )
    seen: list[Tensor] = []
    for editor in (plain, noisy):
        encode = editor.vae.encode
        editor.vae.encode = lambda pixels, encode=encode: (seen.append(pixels), encode(pixels))[1]
        for training in (True, False):
            editor._loss(batch, torch.Generator().manual_seed(0), training=training)
    source, edited = to_device_pixels(batch.source).transpose(1, 2), to_device_pixels(batch.edited).transpose(1, 2)  # type: ignore[arg-type]
    same = [torch.equal(pixels, expected) for pixels, expected in zip(seen, [source, edited] * 4, strict=True)]
    assert same == [True] * 4 + [False, True] + [True] * 2


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("false", False), ("latents", "latents")])
def test_the_mode_of_noise_is_set_from_the_command_line(said: str, meant: bool | str, tmp_path: Path) -> None:
    options = [f"--model.source_noise={said}", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    editor = InsvieCLI(["-c", "s1", "-c", "toy", *options], run=False).model
    assert isinstance(editor, InsViE)
    assert editor.source_noise is meant or editor.source_noise == meant == "latents"


def test_an_unknown_mode_of_noise_is_named(make_editor: Make) -> None:
    with pytest.raises(InputError, match="source_noise is 'pixels'; legal are true, latents and false"):
        make_editor(source_noise="pixels")


@torch.no_grad()
def test_identity_pairs_learn_to_copy_when_nothing_is_asked(make_editor: Make, batch: EditBatch) -> None:
    settings = {"condition_dropout": NO_DROPOUT, "random_weights": True}
    known = replace(batch, origins=("real", "pair", "static", "real"))
    copies = [True, False, True, True]
    expected = replace(
        batch,
        instructions=tuple("" if copy else text for copy, text in zip(copies, batch.instructions, strict=True)),
        edited=torch.where(torch.tensor(copies).reshape(-1, 1, 1, 1, 1), batch.source, batch.edited),  # type: ignore[arg-type]
    )
    plain, identity = make_editor(**settings), make_editor(identity_pairs=1.0, **settings)
    assert identity.training_step(known, 0) == plain.training_step(expected, 0) != plain.training_step(batch, 0)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    held_out = [editor._loss(known, g, training=False) for editor, g in zip((plain, identity), generators, strict=True)]
    assert held_out[0] == held_out[1]


def test_all_ranks_agree_on_identity_pairs(
    make_editor: Make, batch: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other draws of a step differ between ranks; which samples are identity pairs does not."""
    editor, seen = make_editor(identity_pairs=0.5), []
    known = replace(batch, origins=("real",) * 4)
    monkeypatch.setattr(editor, "_loss", lambda one, *_, **__: (seen.append(one.instructions), torch.zeros(()))[1])
    for rank in range(3):
        monkeypatch.setattr(type(editor), "global_rank", rank)
        for step in range(8):
            editor.training_step(replace(known, position=Position("s1", 0, step)), 0)
    assert seen[:8] == seen[8:16] == seen[16:]
    assert len(set(seen)) > 3


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_an_illegal_share_of_identity_pairs_is_one_sentence(share: float) -> None:
    with pytest.raises(InputError, match=rf"identity_pairs is {share}; legal are values from 0 to 1"):
        InsViE(identity_pairs=share)


def test_the_whole_transformer_can_be_trained(make_editor: Make) -> None:
    editor = make_editor(trainable="all")
    names = trainable_weights(editor.transformer).keys()
    assert names == dict(editor.transformer.named_parameters()).keys()
    assert not any("lora" in name for name in names)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_execution_changes_no_gradient(make_editor: Make, batch: EditBatch, checkpointing: str) -> None:
    gradients = []
    plain = Execution(attention="torch", fused_lora=False, channels_last=False)
    for execution in (plain, Execution(checkpointing=checkpointing)):  # type: ignore[arg-type]
        editor = make_editor(execution=execution, random_weights=True)
        editor.transformer.train()
        assert editor.transformer.gradient_checkpointing is (execution != plain)
        editor.training_step(batch, 0).backward()
        gradients.append(editor.transformer.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_frozen_weights_may_be_bfloat16(make_editor: Make, batch: EditBatch) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        editor = make_editor(execution=Execution(frozen_dtype=dtype), random_weights=True)  # type: ignore[arg-type]
        trained = {parameter.dtype for parameter in editor.transformer.parameters() if parameter.requires_grad}
        frozen = {parameter.dtype for parameter in editor.transformer.parameters() if not parameter.requires_grad}
        assert (trained, frozen) == ({torch.float32}, {getattr(torch, dtype)})
        assert editor.vae.dtype == editor.text_encoder.dtype == getattr(torch, dtype)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(editor.training_step(batch, 0))
        losses[-1].backward()
        assert editor.transformer.patch_embed.proj.weight.grad.isfinite().all()
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)


def test_bfloat16_weights_need_mixed_precision(make_editor: Make, base: Path) -> None:
    editor = InsViE(base=str(base), execution=Execution(frozen_dtype="bfloat16"))
    editor.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    editor.trainer.training = True
    with pytest.raises(InputError, match=r"trains with --trainer\.precision bf16-mixed, not 32-true"):
        editor.configure_model()


@torch.no_grad()
def test_attention_is_chosen_for_what_the_network_sees(
    make_editor: Make, batch: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training the batch, in editing the three branches of it."""
    asked: list[tuple[object, ...]] = []
    note = lambda transformer, execution, shape, device, training, timed: asked.append((tuple(shape), training, timed))  # noqa: E731
    monkeypatch.setattr("insvie_lightning.editors.insvie.choose_attention", note)
    editor = make_editor()
    editor.training_step(batch, 0)
    editor.edit_batch(batch)
    assert [one[:2] for one in asked] == [((4, 2, 16, 4, 6), True), ((12, 2, 16, 4, 6), False)]
    assert asked[0][2] is asked[1][2]


# ---------------------------------------------------------------- editing


@pytest.mark.parametrize(
    ("frames", "size"),
    [(1, (64, 96)), (2, (33, 47)), (8, (64, 96)), (9, (101, 60)), (10, (64, 97)), (25, (32, 32)), (50, (16, 24))],
)
def test_any_clip_comes_back_with_its_own_frames_and_size(
    make_editor: Make, frames: int, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 3, *size), np.uint8)
    editor = make_editor(num_inference_steps=1)
    edited = editor.edit(Clip(pixels, 12.5), "remove the red circle", size=(32, 48), max_frames=49)
    assert (edited.frames.shape, edited.frames.dtype, edited.fps) == (pixels.shape, np.uint8, 12.5)
    assert edited.frames.std() > 1


def test_the_working_shape_is_the_base_s(make_editor: Make) -> None:
    assert make_editor().working_shape == (9, 64, 96)


def test_predict_takes_any_length_and_size(make_editor: Make) -> None:
    """Legal shapes go as one batch, others as `edit` does it; the noise is always that of the key."""
    editor = make_editor(random_weights=True, num_inference_steps=1)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 7, 3, 33, 47), np.uint8))
    odd = EditBatch(("a", "b"), ("x", "y"), source=pixels)
    edited = editor.predict_step(odd, 0).edited
    assert edited.shape == pixels.shape and edited.dtype == torch.uint8
    alone = EditBatch(("b",), ("y",), source=pixels[1:])
    assert torch.equal(editor.predict_step(alone, 0).edited[0], edited[1])
    renamed = replace(alone, keys=("c",))
    assert (editor.predict_step(renamed, 0).edited[0].float() - edited[1].float()).abs().max() > 1


@pytest.mark.parametrize("sampler", ["ddim", "dpm", "released"])
def test_an_edit_depends_on_key_and_seed_only(make_editor: Make, batch: EditBatch, sampler: str) -> None:
    editor = make_editor(sampler=sampler, num_inference_steps=3, random_weights=True)
    assert batch.source is not None
    together = editor.edit_batch(batch)
    torch.manual_seed(1)
    assert torch.equal(editor.edit_batch(batch), together)
    assert together.shape == batch.source.shape and together.abs().max() <= 1
    order = [2, 0]
    some = EditBatch(
        tuple(batch.keys[i] for i in order), tuple(batch.instructions[i] for i in order), source=batch.source[order]
    )
    torch.testing.assert_close(editor.edit_batch(some), together[order], atol=1e-4, rtol=0)
    renamed = editor.edit_batch(replace(batch, keys=("other", *batch.keys[1:])))
    assert not torch.allclose(renamed[0], together[0], atol=0.01)
    torch.testing.assert_close(renamed[1:], together[1:], atol=1e-4, rtol=0)
    editor.seed = 1
    assert not torch.allclose(editor.edit_batch(batch), together, atol=0.01)


def test_source_and_sentence_reach_the_network(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(random_weights=True)
    edited = editor.edit_batch(batch)
    changed = [
        replace(batch, source=batch.source.flip(0)),  # type: ignore[union-attr]
        replace(batch, instructions=batch.instructions[::-1]),
    ]
    for other in changed:
        assert not torch.allclose(editor.edit_batch(other), edited, atol=1e-3)
    hidden = [editor.edit_batch(one, keep_source=False) for one in (batch, changed[0])]
    assert torch.equal(*hidden) and not torch.allclose(hidden[0], edited, atol=1e-3)


def test_validation_has_a_fixed_loss_and_videos(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor()
    logged: list[float] = []
    editor.log = lambda name, value, **_: logged.append(float(value.detach()))  # type: ignore[method-assign,assignment]
    first, second = (editor.validation_step(batch, 0) for _ in range(2))
    assert torch.equal(first.edited, second.edited) and logged[0] == logged[1]


def test_schedule_and_form_of_guidance_reach_the_network(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(random_weights=True, num_inference_steps=3)
    results = []
    for form in ("instruct_pix2pix", "paper_eq2"):
        for schedule in ("constant", "cosine_ramp", "oscillating"):
            editor.guidance = Guidance(3.0, 1.5, form=form, schedule=schedule)  # type: ignore[arg-type]
            results.append(editor.edit_batch(batch))
    for i, one in enumerate(results):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in results[:i])


@pytest.mark.parametrize("how", ["command line", "recipe"])
def test_guidance_is_set_from_a_recipe_and_from_the_command_line(how: str, tmp_path: Path) -> None:
    keys = {"guidance_scale": 7.5, "video_guidance_scale": 1.2, "schedule": "oscillating", "form": "paper_eq2"}
    recipe = tmp_path / "released.yaml"
    recipe.write_text(f"model: {{init_args: {{sampler: released, guidance: {keys}}}}}")
    options = ["-c", str(recipe)]
    if how == "command line":
        options = ["--model.sampler=released", *(f"--model.guidance.{key}={value}" for key, value in keys.items())]
    cpu = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    editor = InsvieCLI(["-c", "s1", "-c", "toy", *options, *cpu], run=False).model
    assert isinstance(editor, InsViE)
    assert editor.guidance == Guidance(7.5, 1.2, "paper_eq2", "oscillating")
    assert editor.sampler == "released"


def test_a_test_of_an_editor_that_was_never_trained_says_so(make_editor: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("insvie_lightning.editors.insvie.rank_zero_info", said.append)
    editor = make_editor()
    editor.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    weight = editor.transformer.patch_embed.proj.weight
    with torch.no_grad():
        weight[:, 16:] = 0
        editor.setup("test")
        weight[0, 16] = 0.1
        editor.setup("test")
    assert len(said) == 1 and "never trained" in said[0] and "--model.start_from" in said[0]


def test_a_validation_edits_for_so_long_only(make_editor: Make, batch: EditBatch) -> None:
    editor = make_editor(max_validation_seconds=1e-9)
    editor.on_validation_epoch_start()
    first, second = editor.validation_step(batch, 0), editor.validation_step(batch, 1)
    assert not first.missing and second.missing == set(batch.keys)
    assert list(samples_of(batch, second)) == [] and len(list(samples_of(batch, first))) == len(batch)
    editor.on_validation_epoch_start()
    assert not editor.validation_step(batch, 2).missing
