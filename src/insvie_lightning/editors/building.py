"""Building an editor: its networks out of a base, its trained weights out of a deliverable, and these back into one.

An editor, here, is a LightningModule with the attributes `base`, `base_dtype`, `transformer`, `ema` and `ema_updates`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import CogVideoXTransformer3DModel
from lightning import LightningModule

from insvie_lightning.diffusion.sampling import Sampler, build_scheduler
from insvie_lightning.errors import InputError
from insvie_lightning.nets.execution import Execution, prepare_transformer, to_channels_last
from insvie_lightning.weights.components import Components, load_components
from insvie_lightning.weights.deliverable import (
    Deliverable,
    check_settings,
    gathered,
    load_deliverable,
    load_trainable,
    trainable_weights,
)

EditorModule = TypeVar("EditorModule", bound=LightningModule)


def check_precision(execution: Execution, trainer: Any) -> None:
    """Refuse to train bfloat16 weights otherwise than in mixed precision.

    Args:
        execution: How the networks are run.
        trainer: None outside one.

    Raises:
        InputError: The trainer's precision does not suit.
    """
    precision = trainer.precision if trainer is not None and trainer.training else "bf16-mixed"
    if execution.frozen_dtype == "bfloat16" and precision != "bf16-mixed":
        raise InputError(f"execution.frozen_dtype bfloat16 trains with --trainer.precision bf16-mixed, not {precision}")


def build_networks(
    base: str,
    adapt: Callable[[CogVideoXTransformer3DModel], None],
    sampler: Sampler,
    execution: Execution,
    dtype: torch.dtype,
    seed: int,
) -> Components:
    """The networks of an editor on a text-to-video base, and the scheduler of its sampler.

    Args:
        base: See `load_components`.
        adapt: Makes an editor's transformer of the base's, in place: new layers, LoRA, what is trained.
        sampler: One of `SAMPLERS`.
        execution: How the networks are run.
        dtype: Of all weights. float32 is for training, too: what is trained is float32, the rest as `execution` says.
        seed: Of the new weights; the global generator stays as it is.

    Raises:
        InputError: The base cannot be loaded, or not be run like that.
    """
    trains = dtype == torch.float32
    parts = load_components(base, getattr(torch, execution.frozen_dtype) if trains else dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapt(parts.transformer)
    for parameter in parts.transformer.parameters():
        if parameter.requires_grad and trains:
            parameter.data = parameter.data.float()
    prepare_transformer(parts.transformer, execution)
    if execution.channels_last:
        to_channels_last(parts.vae)
    vae, text_encoder = (part.eval().requires_grad_(False) for part in (parts.vae, parts.text_encoder))
    scheduler = build_scheduler(sampler, parts.scheduler.config)
    return Components(parts.transformer, vae, text_encoder, parts.tokenizer, scheduler)


def continue_from(editor: Any, folder: Path, must_agree: Sequence[str]) -> None:
    """Take the raw and averaged weights of an earlier run into an editor, to train on.

    Args:
        editor: Its networks are there.
        folder: The `weights` folder of that run.
        must_agree: Names of settings that give the weights another meaning.

    Raises:
        InputError: The folder is no deliverable, or a setting or a weight does not fit.
    """
    deliverable = load_deliverable(folder)
    check_settings(deliverable.settings, {name: getattr(editor, name) for name in must_agree}, editor.base, folder)
    _take(editor, deliverable, str(folder))


def restore(kind: type[EditorModule], folder: Path, dtype: torch.dtype, settings: dict[str, Any]) -> EditorModule:
    """Build a trained editor from the `weights` folder of a run, for editing.

    Args:
        kind: Its class.
        folder: The deliverable.
        dtype: That the base is loaded in.
        settings: Arguments of the class that override the stored ones.

    Raises:
        InputError: The folder is no deliverable of this class.
    """
    deliverable = load_deliverable(folder)
    stored = {**deliverable.settings, **settings}
    stored.pop("editor", None)
    parameters = signature(kind).parameters
    for name, parameter in parameters.items():
        default = parameter.default
        if isinstance(stored.get(name), dict) and is_dataclass(default) and not isinstance(default, type):
            stored[name] = type(default)(**stored[name])
    if unknown := sorted(stored.keys() - parameters.keys()):
        raise InputError(f"{folder} is of another editor: {kind.__name__} takes no {unknown[0]!r}")
    editor: Any = kind(**stored)
    editor.base_dtype = dtype
    editor.configure_model()
    _take(editor, deliverable, str(folder))
    editor.setup("predict")
    built: EditorModule = editor.eval()
    return built


def to_deliverable(editor: Any, names: Sequence[str]) -> Deliverable:
    """The trained weights of an editor and what is needed to build it around them; called by all processes.

    Args:
        editor: Its networks are there.
        names: The settings that go in, besides its class and base; a local base is told by its whole path.
    """
    base = editor.base
    settings = {
        "editor": type(editor).__name__,
        "base": str(Path(base).resolve()) if "/" in base and Path(base).is_dir() else base,
    }
    for name in names:
        value = getattr(editor, name)
        settings[name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    ema = None if editor.ema is None else gathered(editor.ema)
    return Deliverable(settings, gathered(trainable_weights(editor.transformer)), ema, editor.ema_updates)


def keep_trained(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Leave frozen networks out of a resume checkpoint of Lightning's, in place."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}


def _take(editor: Any, deliverable: Deliverable, origin: str) -> None:
    load_trainable(editor.transformer, deliverable.raw, origin)
    editor.ema, editor.ema_updates = deliverable.ema, deliverable.ema_updates
