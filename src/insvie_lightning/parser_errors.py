"""What jsonargparse says is wrong with a recipe or an argument, as one sentence."""

import re
from inspect import signature

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torchmetrics import Metric

from insvie_lightning.errors import nearest
from insvie_lightning.plugins import GROUP, available

_NOISE = ("Does not validate", "Subtypes:", "Errors:", "Problem with given class", "Given value", "Expected a path")


def explain(message: str) -> str:
    """Return jsonargparse's message, many lines of every alternative that it tried, as one sentence about the first.

    The key comes first (`model.width: expected int, got a`), the nearest legal name last.
    """
    if found := re.search(r"Importing '([\w.]+)' is not allowed", message):
        return (
            f"{_where(message, found)}a recipe may not name {found[1]!r}, only classes of torch, lightning, "
            f"torchmetrics and of packages that advertise {GROUP!r}"
        )
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{_where(message, found)}no class {found[1]!r} is registered{_nearest_class(message, found[1])}"
    if found := re.search(r"class_path '[\w.]+\.(\w+)':\s+Option '([\w.]+)' is not accepted", message):
        return f"{_where(message, found)}{found[1]} takes no {found[2]!r}{_nearest_argument(found[1], found[2])}"
    if found := re.search(r"(?:unrecognized arguments: --|not accept option ')([\w.]+)", message):
        names = [f"trainer.{name}" for name in signature(Trainer).parameters]
        return f"no option {found[1]!r} here{nearest(found[1], names)}"
    if "required" in message:
        return f"{one_line(message)}; give a recipe with -c"
    lines = [line.strip(" -") for line in re.sub(r'Parser key "[\w.]+":', "\n", message).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_NOISE)]
    if not reasons:
        return one_line(message)
    reason = " ".join(reasons)
    if "Does not validate" in message:
        reason = reasons[0]
        if "ot value" not in reason:
            # Of a union of plain types all are legal; of a class and null the first says what is wrong.
            if all(line.startswith("Expected a <") for line in reasons):
                reason = " or ".join(line.removeprefix("Expected a ") for line in reasons)
                reason = f"Expected a {reason}"
            given = re.search(r"Given value: (.*)", message)
            reason += f". Got value: {given[1]}" if given else ""
    where = _where(message, re.search(re.escape(reasons[0]), message))
    reason = reason.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")
    reason = re.sub(r"<class '([\w.]+)'>", r"\1", one_line(reason)).replace("NoneType", "null")
    if found := re.search(r"typing\.Literal\[(.*?)\], got '?(\w+)", reason):
        names = re.findall(r"'([^']+)'", found[1])
        reason = reason.replace(f"typing.Literal[{found[1]}]", f"one of {', '.join(names)}") + nearest(found[2], names)
    return where + reason


def one_line(text: str) -> str:
    """Text with every run of white space, line breaks too, as one space."""
    return re.sub(r"\s+", " ", text).strip()


def _where(message: str, reason: re.Match[str] | None) -> str:
    keys = re.findall(r'[Kk]ey "([\w.]+)"', message[: reason.start() if reason else None])
    return f"{'.'.join(keys)}: " if keys else ""


def _nearest_class(message: str, name: str) -> str:
    bases = {"LightningModule": LightningModule, "LightningDataModule": LightningDataModule, "Callback": Callback}
    wanted = re.search(r"Subtypes: .*?\b(LightningModule|LightningDataModule|Callback)\b", message)
    kinds = [bases[wanted[1]]] if wanted else [*bases.values(), Metric]
    return nearest(name, [known for base in kinds for known in available(base)]) or "; insvie list shows all"


def _nearest_argument(class_name: str, argument: str) -> str:
    for base in (LightningModule, LightningDataModule, Callback, Metric):
        if cls := available(base).get(class_name):
            return nearest(argument, signature(cls).parameters)
    return ""
