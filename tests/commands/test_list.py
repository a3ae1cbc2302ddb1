import pytest

from insvie_lightning.cli import main
from insvie_lightning.commands.list import LIBRARIES, families
from insvie_lightning.config import recipes

FAMILIES = ["editors", "builders", "pretraining", "data modules", "callbacks", "metrics"]


def test_families_are_told_apart_by_what_their_classes_can_do() -> None:
    from lightning import Callback, LightningModule

    class ProbeEditor(LightningModule):
        """Trains."""

        def training_step(self, batch: object, index: int) -> None: ...

    class ProbeBuilder(LightningModule):
        """Is only predicted with."""

    class ProbeCallback(Callback):
        """Watches."""

    found = families()
    assert list(found) == FAMILIES
    assert ProbeEditor in found["editors"]
    assert ProbeBuilder in found["builders"]
    assert ProbeCallback in found["callbacks"]
    assert not {cls.__module__.partition(".")[0] for classes in found.values() for cls in classes} & LIBRARIES


def test_list_prints_first_docstring_lines_and_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    from lightning import Callback

    class ProbePrinted(Callback):
        """Says one thing.

        And then another.
        """

    assert ProbePrinted.__doc__
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip(":") for line in lines if not line.startswith(" ")] == [*FAMILIES, "recipes"]
    assert ["ProbePrinted", "Says one thing."] in [line.split(maxsplit=1) for line in lines]
    assert set(recipes()) <= {line.split()[0] for line in lines[lines.index("recipes:") + 1 :]}
