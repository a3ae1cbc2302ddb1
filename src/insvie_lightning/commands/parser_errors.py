"""What jsonargparse says is wrong with a recipe or an argument, as one sentence; and a null that it gets wrong."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any, get_args

from jsonargparse import Namespace
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
    if found := re.search(r"class_path '([\w.]+)\.(\w+)':\s+Option '([\w.]+)' is not accepted", message):
        legal = _parameters(found[1], found[2])
        return f"{_where(message, found)}{found[2]} takes no {found[3]!r}{nearest(found[3], legal)}"
    if found := re.search(r"unrecognized arguments: (\w[\w./-]*)", message):
        return f"{found[1]!r} belongs to no option; a recipe is given by -c, such as -c {found[1]}"
    if found := re.search(r"(?:unrecognized arguments: --|not accept option ')([\w.]+)", message):
        where, grouped = _where(message, found), list(_grouped_options())
        inside = [name.partition(".")[2] for name in grouped] if where else []
        names = [*(f"trainer.{name}" for name in signature(Trainer).parameters), *grouped, *inside]
        return f"{where}no option {found[1]!r} here{nearest(found[1], names)}"
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
                reason = " or ".join(dict.fromkeys(line.removeprefix("Expected a ") for line in reasons))
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


def _parameters(module: str, class_name: str) -> list[str]:
    """What a class takes: a registered one by its name, any other by the module where it is."""
    known = (available(base).get(class_name) for base in (LightningModule, LightningDataModule, Callback, Metric))
    cls = next(filter(None, known), None) or getattr(sys.modules.get(module), class_name, None)
    return list(signature(cls).parameters) if cls else []


def _grouped_options() -> Iterator[str]:
    """The options that a class takes together, as a dataclass, such as `guidance.guidance_scale`."""
    for cls in (*available(LightningModule).values(), *available(LightningDataModule).values()):
        with suppress(NameError, TypeError, ValueError):  # hints that cannot be read, of a class of others
            for name, parameter in signature(cls, eval_str=True).parameters.items():
                for kind in (parameter.annotation, *get_args(parameter.annotation)):
                    for option in fields(kind) if is_dataclass(kind) else ():
                        yield f"{name}.{option.name}"


def mend_nulls(config: Any, arguments: Sequence[str]) -> None:
    """Make null what an argument said is null: below a class jsonargparse gives the text or path `None` for it.

    Args:
        config: The parsed config; changed in place.
        arguments: Those of the command line.
    """
    words = " ".join(map(str, arguments))
    names = {option.rpartition(".")[2] for option in re.findall(r"--([\w.]+)(?:=| )null(?= |$)", words)}
    waiting = [config] if names else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, Namespace):
            for name, item in vars(value).items():
                if name in names and str(item) == "None":
                    setattr(value, name, None)
                else:
                    waiting.append(item)
