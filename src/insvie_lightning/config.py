"""Named configs: where the shipped recipes are, and which of them a name on the command line means."""

import os
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import yaml

from insvie_lightning.errors import InputError, first_line, nearest
from insvie_lightning.files import open_text

_MAX_CHARACTERS, _MAX_VALUES, _MAX_DEPTH = 1_000_000, 100_000, 100
_BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


def config_root() -> Path:
    """Return the folder of shipped recipes: in the package when installed, at the repository's root if editable."""
    here = Path(__file__).resolve().parent
    return next(root for root in (here / "configs", here.parents[1] / "configs") if root.is_dir())


def recipes() -> dict[str, str]:
    """Return name -> first header line (without `#`) of every shipped recipe, sorted by name."""
    root = config_root()
    files = sorted(root.rglob("*.yaml"))
    return {file.relative_to(root).with_suffix("").as_posix(): header(file) for file in files}


def header(file: Path) -> str:
    """Return the first line of a recipe's header comment, or an empty string when it opens without one."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def describe(verb: str, names: Sequence[str]) -> str:
    """What recipes say of themselves, in their header comments, and how to see the options of their classes.

    Args:
        verb: What is to be done with them.
        names: The recipes, later ones overlay.

    Raises:
        InputError: One of them is no recipe.
    """
    told: list[str] = []
    classes: dict[str, str] = {}
    for name in names:
        path = Path(find_config(name))
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
        told += [f"{name}:", *(f"  {line[2:]}".rstrip() for line in comment), ""]
        try:
            settings_of = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise InputError(f"{path} is no recipe: {first_line(error)}") from None
        for part, settings in settings_of.items():
            if part in ("model", "data") and isinstance(settings, dict) and "class_path" in settings:
                classes[part] = settings["class_path"]
    helps = [f"insvie {verb} --{part}.help {cls}" for part, cls in classes.items()]
    return "\n".join([*told, "options:", *(f"  {line}" for line in [*helps, f"insvie {verb} --help"])])


def check_recipe(path: Path) -> None:
    """Refuse a file that no recipe is, before it is parsed at length.

    Raises:
        InputError: It is no text in UTF-8, is nested too deeply, or grows beyond 100 000 values, as a few lines of
            aliases of aliases can.
    """
    with open_text(path, "recipe") as file:
        text = file.read(_MAX_CHARACTERS + 1)
    if len(text) > _MAX_CHARACTERS:
        raise InputError(f"{path} is no recipe: it has more than {_MAX_CHARACTERS:,} characters")
    # The parser takes the square of the depth in seconds.
    if max(accumulate(_BRACKETS.get(character, 0) for character in text), default=0) > _MAX_DEPTH:
        raise InputError(f"{path} is no recipe: it is nested too deeply")
    try:
        content = yaml.safe_load(text)
    except (RecursionError, ValueError):  # ValueError: a number of too many digits
        raise InputError(f"{path} is no recipe: it is nested too deeply, or has a number that is none") from None
    except yaml.YAMLError:
        return  # whoever parses it says where
    if not isinstance(content, dict):
        raise InputError(f"{path} is no recipe: it holds no `key: value` at its top")
    waiting: list[dict[Any, Any] | list[Any]] = [content]
    seen = 0
    while waiting:
        value = waiting.pop()
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        waiting += [part for part in inside if isinstance(part, dict | list)]
        if (seen := seen + len(inside)) > _MAX_VALUES:
            raise InputError(f"{path} is no recipe: with its aliases it has more than {_MAX_VALUES:,} values")


def find_config(value: str) -> str:
    """Return what `--config value` means: a file as given, else the shipped recipe of that name.

    Args:
        value: A path, the bare name of a recipe (`s1`, `s1.yaml`), or YAML itself (`trainer: {max_steps: 2}`).

    Raises:
        InputError: It is neither; the sentence lists the shipped recipes.
    """
    if os.path.isfile(value):  # unlike Path's it takes YAML, which is longer than any path
        check_recipe(Path(value))
        return value
    if ":" in value:
        return value
    named = config_root() / Path(value).with_suffix(".yaml")
    if named.is_file():
        return str(named)
    names = list(recipes())
    raise InputError(
        f"no recipe {value!r}: neither a file here nor one of {', '.join(names)}"
        f"{nearest(Path(value).with_suffix('').as_posix(), names)}"
    )
