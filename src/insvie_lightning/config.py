"""Named configs: where the shipped recipes are, and which of them a name on the command line means."""

from pathlib import Path

from insvie_lightning.errors import InputError, nearest


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


def find_config(value: str) -> str:
    """Return what `--config value` means: a file as given, else the shipped recipe of that name.

    Args:
        value: A path, the bare name of a recipe (`s1`, `s1.yaml`), or YAML itself (`trainer: {max_steps: 2}`).

    Raises:
        InputError: It is neither; the sentence lists the shipped recipes.
    """
    if Path(value).is_file() or ":" in value:
        return value
    named = config_root() / Path(value).with_suffix(".yaml")
    if named.is_file():
        return str(named)
    names = list(recipes())
    raise InputError(
        f"no recipe {value!r}: neither a file here nor one of {', '.join(names)}"
        f"{nearest(Path(value).with_suffix('').as_posix(), names)}"
    )
