from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from insvie_lightning import plugins
from insvie_lightning.errors import InputError
from insvie_lightning.plugins import GROUP, available, load_plugins


def advertise(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    points = [EntryPoint(f"point_{module}", module, GROUP) for module in modules]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])


def test_advertised_modules_are_imported_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zeta_plugin", "alpha_plugin"):
        (tmp_path / f"{name}.py").write_text("class Base: ...\nclass Registered(Base): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    advertise(monkeypatch, "zeta_plugin", "alpha_plugin")
    assert load_plugins() == ["alpha_plugin", "zeta_plugin"]
    import alpha_plugin

    assert available(alpha_plugin.Base) == {"Registered": alpha_plugin.Registered}


def test_the_first_party_plugins_are_advertised_like_any_other() -> None:
    assert {"insvie_callbacks", "insvie_data_modules"} <= set(load_plugins())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_plugin_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    advertise(monkeypatch, "broken_plugin")
    with pytest.raises(InputError, match=rf"plug-in 'point_broken_plugin' \(broken_plugin, .*{reason}"):
        load_plugins()


def test_available_descends_and_leaves_private_classes_out() -> None:
    class Root: ...

    class _Hidden(Root): ...

    class Zebra(_Hidden): ...

    class Ant(Root): ...

    assert list(available(Root).items()) == [("Ant", Ant), ("Zebra", Zebra)]
