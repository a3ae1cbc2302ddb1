"""Lightning's verbs on recipes: registered class names, named configs, and errors of one sentence."""

import json
import logging
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, set_parsing_settings
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from insvie_lightning.commands.parser_errors import explain, mend_nulls, one_line
from insvie_lightning.commands.step_bar import StepBar
from insvie_lightning.config import find_config
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.plugins import load_plugins
from insvie_lightning.resume.checkpoints import NEW, AtomicCheckpointIO, resume_path

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"predict returned None",
    r"Found \d+ module\(s\) in eval mode",
    r"You have overridden `transfer_batch_to_device`",
    r".*does not have many workers",
    r"There are modules in .* that should be kept in float32",
    r"Checkpoint directory .* exists and is not empty",  # a rerun goes on there
    r"The parameter 'pretrained' is deprecated",  # lpips and torchvision
    r"Arguments other than a weight enum or `None` for 'weights'",
)
"""Warnings about what this project does on purpose, or can do nothing about."""
_FORMAT_WARNING = warnings.formatwarning
FAMILIES = ("insvie_lightning.editors", "insvie_lightning.builders", "insvie_lightning.pretraining")


def register() -> None:
    """Import the project's families and every plug-in, and let configs name classes of these and of torch only.

    Raises:
        InputError: A plug-in fails to import.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_worth_telling)
    modules = [*FAMILIES, *load_plugins()]
    for family in FAMILIES:
        import_module(family)
    packages = {module.partition(".")[0] for module in modules}
    warnings.formatwarning = _as_a_line(packages | {"lightning"})
    set_parsing_settings(
        # A recipe is data from outside: everything is denied but the libraries' classes, and of torch the loaders too.
        import_path_denylist=["*", "torch.hub", "torch.jit", "torch.package", "torch.serialization"],
        import_path_allowlist=sorted(packages | {"lightning", "torch", "torchmetrics"}),
    )


def _as_a_line(packages: set[str]) -> Callable[..., str]:
    """Format what these packages warn of as one line for the user, without the line of code; the rest as before."""

    def formatted(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if packages.isdisjoint(Path(filename).parts):
            return _FORMAT_WARNING(message, category, filename, lineno, line)
        return f"warning: {one_line(str(message))}\n"

    return formatted


def _worth_telling(record: logging.LogRecord) -> bool:
    return not re.search(r"Tip: |TPU available|^Restor(ing|ed) ", record.getMessage())


class _Parser(LightningArgumentParser):
    """A parser that takes no abbreviations, nor do those that it makes of itself for the options of a class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class InsvieCLI(LightningCLI):
    """LightningCLI for registered modules and data modules; `--config` also takes the name of a recipe.

    Args:
        args: The arguments, the verb first; those of the process when None.
        run: Whether to run the verb; False (then `args` has no verb) only builds `model`, `datamodule` and `trainer`.

    Raises:
        InputError: An argument or a recipe is not legal.
    """

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        register()
        # Every parser has to raise, or the first one to fail prints its usage and exits.
        raising = {"exit_on_error": False}
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig if run else None,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_class=_Parser,
            parser_kwargs={**raising, **{verb: dict(raising) for verb in self.subcommands()}},
            args=None if args is None else list(args),
            run=run,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser whose `--config` takes names."""
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=NamedConfig,
            help="A YAML file or the name of a shipped recipe; later ones overlay.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keep the metrics apart from the other callbacks, so that an overlay can replace all of them at once."""
        parser.add_argument(
            "--metrics", type=list[Callback], default=[], help="Callbacks that score the edits of validation and test."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say what is wrong in one sentence."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(explain(error.message)) from error
        mend_nulls(self.config, sys.argv if args is None else args)
        checkpoint = self.config.get(f"{self.config.get('subcommand')}.ckpt_path")
        if checkpoint and checkpoint not in ("best", "last", "hpc", NEW):
            if not _exists(checkpoint):
                raise InputError(f"--ckpt_path {checkpoint}: no such file or folder; last, best and new are legal, too")
            if "://" not in checkpoint:
                from insvie_lightning.weights.checkpoint import check_checkpoint

                check_checkpoint(Path(checkpoint))

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's verbs without `weights_only`: a recipe cannot ask for checkpoints to be unpickled."""
        return {verb: {*skipped, "weights_only"} for verb, skipped in LightningCLI.subcommands().items()}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # Lightning's own default would unpickle a checkpoint from the network.
        return super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the model arguments stored in a checkpoint override the recipe and the command line. Here
        # the recipe says what the model is, and a checkpoint gives weights and state only.
        return

    def instantiate_classes(self) -> None:
        """Build trainer, data and model; bad input that a constructor raised is unwrapped from jsonargparse's error."""
        with _unwrapped():
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "predict" and self._is_built():
            return
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:  # as a verb that the recipe's classes do not know
            raise InputError(f"{subcommand}: {one_line(str(error))}") from error
        except RuntimeError as error:
            if not (text := str(error)).startswith("Error(s) in loading state_dict"):
                raise
            raise InputError(f"the checkpoint is of another model: {one_line(text)[:300]}") from error

    def before_fit(self) -> None:
        """Go on from the newest complete checkpoint of the run folder, unless told otherwise."""
        options = self.config_init["fit"]
        options["ckpt_path"] = resume_path(self.trainer, options["ckpt_path"])

    def _is_built(self) -> bool:
        """Whether a step of building data has nothing to do; then its weights, which take minutes, are not loaded."""
        from insvie_lightning.builders.builder import Builder
        from insvie_lightning.builders.finished import end_if_finished

        inputs = getattr(self.datamodule, "inputs", None)
        self.model.trainer = self.trainer  # what a step makes may depend on it, as on its precision
        return isinstance(self.model, Builder) and inputs is not None and end_if_finished(self.model, inputs())

    def before_predict(self) -> None:
        """Predictions are written by builders and callbacks; keeping them, too, would fill the memory with videos."""
        self.config_init["predict"]["return_predictions"] = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with metrics among its callbacks and checkpoints that a crash cannot break.

        The strategy `fsdp` is FSDP2, as `-c fsdp`: Lightning's own of that name does not suit uneven work.

        Raises:
            InputError: The strategy is FSDP1, or Lightning does not take the settings.
        """
        verb = self.config.get("subcommand")
        config = self.config_init[verb] if verb else self.config_init
        if config.trainer is None:
            raise InputError("trainer: expected its settings, got null; give some, or leave the key out")
        callbacks = config.trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        strategy = config.trainer.strategy
        if strategy == "fsdp":
            kwargs["strategy"] = FullySharded()
        elif isinstance(strategy, FSDPStrategy) or str(strategy).startswith("fsdp_"):
            raise InputError(
                "trainer.strategy is Lightning's FSDPStrategy, which is FSDP1: it runs on GPUs only, and no rank can "
                "take part in what others run; legal for shared weights is fsdp, which is FSDP2"
            )
        try:
            trainer = super().instantiate_trainer(callbacks=[*callbacks, *config.metrics], **kwargs)
        except (ValueError, MisconfigurationException) as error:
            raise InputError(f"trainer: {one_line(str(error))}") from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        bar = trainer.progress_bar_callback
        if type(bar) is RichProgressBar:
            others = [callback for callback in trainer.callbacks if callback is not bar]  # type: ignore[attr-defined]
            # It comes first, so that it ends before the others say where the results are.
            trainer.callbacks = [StepBar(), *others]  # type: ignore[attr-defined]
        return trainer


def build_model(class_name: str, settings: dict[str, Any], arguments: Sequence[str] = ()) -> LightningModule:
    """Build a registered module from its stored settings, overridden by `--model.NAME VALUE` arguments.

    Raises:
        InputError: The class is not registered, or an argument is not legal.
    """
    register()
    parser = _Parser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    stored = json.dumps({"class_path": class_name, "init_args": settings})
    try:
        config = parser.parse_args([f"--model={stored}", *arguments])
    except ArgumentError as error:
        raise InputError(explain(error.message)) from error
    mend_nulls(config, arguments)
    with _unwrapped():
        model: LightningModule = parser.instantiate(config).model
    return model


@contextmanager
def _unwrapped() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise cause or error from None


class NamedConfig(ActionConfigFile):
    """`--config s1`: the path as given, else the shipped recipe of that name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Read the config into `namespace`; what is wrong inside it is reported with its path."""
        path = find_config(values)
        try:
            super().__call__(parser, namespace, path, option_string)
        except (ArgumentError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: {explain(str(error))}") from error


class _SaveConfig(SaveConfigCallback):
    """Saves the resolved config in the run folder; testing a trained run keeps the config that trained it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        verb = TrainerFn(stage).value
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if verb != "fit" and (folder / "config.yaml").exists():
            self.config_filename = f"config.{verb}.yaml"
        super().setup(trainer, pl_module, stage)


def _exists(path: str) -> bool:
    return "://" in path or Path(path).exists()
