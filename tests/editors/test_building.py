"""Building an editor: its networks on a base, and what is stored of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from insvie_lightning.diffusion.conditioning import ConditionDropout
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.building import build_networks, check_precision, keep_trained, restore, to_deliverable
from insvie_lightning.errors import InputError
from insvie_lightning.nets.execution import Execution
from insvie_lightning.nets.source_concat import add_lora
from insvie_lightning.weights.deliverable import save_deliverable, trainable_weights

Make = Callable[..., InsViE]
HALF = Execution(frozen_dtype="bfloat16")


@pytest.mark.parametrize(("dtype", "trained"), [(torch.float32, torch.float32), (torch.float16, torch.float16)])
def test_what_is_trained_is_float32_unless_all_is_for_editing(
    base: Path, dtype: torch.dtype, trained: torch.dtype
) -> None:
    def build(seed: int) -> Any:
        return build_networks(str(base), lambda net: add_lora(net, 4, 4.0), "dpm", HALF, dtype, seed)

    state = torch.random.get_rng_state()
    parts, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    kinds = {parameter.dtype for parameter in parts.transformer.parameters() if parameter.requires_grad}
    frozen = torch.bfloat16 if dtype == torch.float32 else dtype
    assert kinds == {trained} and parts.vae.dtype == parts.text_encoder.dtype == frozen
    assert not any(p.requires_grad for net in (parts.vae, parts.text_encoder) for p in net.parameters())
    assert not parts.vae.training and not parts.text_encoder.training and "DPM" in type(parts.scheduler).__name__
    new = [trainable_weights(made.transformer) for made in (parts, again, other)]
    assert all(torch.equal(value, new[1][name]) for name, value in new[0].items())
    assert not all(torch.equal(value, new[2][name]) for name, value in new[0].items())


@pytest.mark.parametrize("last", [True, False])
def test_the_autoencoder_has_channels_last_if_asked(base: Path, last: bool) -> None:
    execution = Execution(channels_last=last)
    parts = build_networks(str(base), lambda net: add_lora(net, 4, 4.0), "dpm", execution, torch.float32, 0)
    weight = parts.vae.decode_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) is last and weight.shape[2] > 1


def test_bfloat16_weights_train_in_mixed_precision_only() -> None:
    check_precision(HALF, None)
    check_precision(HALF, SimpleNamespace(precision="32-true", training=False))
    check_precision(HALF, SimpleNamespace(precision="bf16-mixed", training=True))
    check_precision(Execution(), SimpleNamespace(precision="32-true", training=True))
    with pytest.raises(InputError, match=r"trains with --trainer\.precision bf16-mixed, not 32-true"):
        check_precision(HALF, SimpleNamespace(precision="32-true", training=True))


def test_what_is_stored_builds_the_editor_again(make_editor: Make, base: Path, tmp_path: Path) -> None:
    editor = make_editor(random_weights=True)
    editor.ema_updates = 7
    made = to_deliverable(editor, ["lora_rank", "guidance"])
    told = {"editor": "InsViE", "base": str(base.resolve()), "lora_rank": 4}
    assert {name: made.settings[name] for name in told} == told
    assert Guidance(**made.settings["guidance"]) == editor.guidance and made.ema is None and made.ema_updates == 7
    save_deliverable(made, tmp_path)
    changes = {"condition_dropout": {"text": 0.3, "video": 0.0}, "sampler": "released"}
    again = restore(InsViE, tmp_path, torch.float32, changes)
    assert (again.guidance, again.sampler) == (editor.guidance, "released")
    assert again.condition_dropout == ConditionDropout(0.3, 0.0)
    assert all(torch.equal(value, made.raw[name]) for name, value in trainable_weights(again.transformer).items())
    assert again.ema_updates == 7 and not again.training
    with pytest.raises(InputError, match="is of another editor: InsViE takes no 'sampel'"):
        restore(InsViE, tmp_path, torch.float32, {"sampel": "dpm"})


def test_a_checkpoint_keeps_what_is_trained(make_editor: Make) -> None:
    editor = make_editor()
    checkpoint: dict[str, Any] = {"state_dict": editor.state_dict(), "epoch": 1}
    keep_trained(editor, checkpoint)
    names = {name for name, parameter in editor.named_parameters() if parameter.requires_grad}
    assert checkpoint["state_dict"].keys() == names and len(names) == 2 * 4 * 2 + 2 and checkpoint["epoch"] == 1
