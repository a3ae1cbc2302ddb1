"""`insvie list`: every registered class by family with the first line of its docstring, and the shipped recipes."""

from collections.abc import Iterable, Sequence

from insvie_lightning.commands.parser import Parser
from insvie_lightning.config import recipes
from insvie_lightning.plugins import available

LIBRARIES = {"lightning", "pytorch_lightning", "torch", "torchmetrics"}


def main(argv: Sequence[str]) -> int:
    """Print the families and the recipes; return 0."""
    Parser("insvie list", description=__doc__).parse_args(argv)
    for family, classes in families().items():
        _print(family, ((cls.__name__, _first_line(cls)) for cls in classes))
    _print("recipes", recipes().items())
    return 0


def families() -> dict[str, list[type]]:
    """Return family -> registered classes, sorted by name; what the libraries themselves bring is left out.

    A LightningModule without a training or test step of its own is a builder: it is only predicted with.
    """
    from lightning import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.utilities.model_helpers import is_overridden
    from torchmetrics import Metric

    from insvie_lightning.commands.lightning_cli import register

    register()
    modules = _ours(LightningModule)
    trained = [cls for cls in modules if is_overridden("training_step", cls, parent=LightningModule)]
    pretraining = [cls for cls in trained if cls.__module__.startswith("insvie_lightning.pretraining")]
    tested = [cls for cls in modules if is_overridden("test_step", cls, parent=LightningModule)]
    return {
        "editors": [cls for cls in modules if cls in trained + tested and cls not in pretraining],
        "builders": [cls for cls in modules if cls not in trained + tested],
        "pretraining": pretraining,
        "data modules": _ours(LightningDataModule),
        "callbacks": _ours(Callback),
        "metrics": _ours(Metric),
    }


def _ours(base: type) -> list[type]:
    return [cls for cls in available(base).values() if cls.__module__.partition(".")[0] not in LIBRARIES]


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _print(title: str, rows: Iterable[tuple[str, str]]) -> None:
    print(f"{title}:")
    for name, meaning in rows:
        print(f"  {name:<24} {meaning}".rstrip())
