"""Plug-in discovery: a distribution advertises modules, and importing them makes their class names usable in YAML."""

from importlib.metadata import entry_points
from inspect import isabstract

from insvie_lightning.errors import InputError

GROUP = "insvie_lightning.plugins"


def load_plugins() -> list[str]:
    """Import every module advertised under `insvie_lightning.plugins` and return their names, sorted.

    Raises:
        InputError: A module fails to import; the sentence names the plug-in and its distribution.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: point.value)
    for point in points:
        try:
            point.load()
        except Exception as error:
            owner = point.dist.name if point.dist else "an unknown distribution"
            raise InputError(
                f"plug-in {point.name!r} ({point.value}, from {owner}) cannot be imported: "
                f"{type(error).__name__}: {error}; mend it, or uninstall {owner}"
            ) from error
    return [point.module for point in points]


def available(base: type) -> dict[str, type]:
    """Return name -> class of every public subclass of `base` loaded so far that is not abstract, sorted by name."""
    found: dict[str, type] = {}
    queue: list[type] = list(base.__subclasses__())
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not cls.__name__.startswith("_") and not isabstract(cls):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))
