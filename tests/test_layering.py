import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/insvie_lightning"
FLOORS = {
    0: {"errors", "files"},
    1: {
        "batch",
        "camera",
        "columns",
        "config",
        "decode",
        "diffusion",
        "edit_list",
        "fsdp",
        "judges",
        "nets",
        "plugins",
        "quarantine",
        "resume",
        "slow_reads",
        "video",
    },
    2: {"metrics", "shards", "toy", "weights"},
    3: {"builders", "editors", "pretraining", "report"},
    4: {"cli", "commands"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
PLUGINS = {"insvie_callbacks", "insvie_data_modules"}
HEAVY = {"cv2", "diffusers", "lpips", "open_clip", "transformers"}


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the dotted names that the import statements among `nodes` bring in."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs when the module is imported: function bodies and TYPE_CHECKING blocks do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
PLUGIN_MODULES = sorted(path for room in ("callbacks", "data_modules") for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_room_imports_only_rooms_on_lower_floors(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOOR, f"give the new room {room!r} a floor in design and here"
    names = [dotted.split(".") for dotted in imported(ast.walk(parse(path)))]
    assert not PLUGINS & {parts[0] for parts in names}, "the framework never imports its plug-ins"
    rooms = {parts[1] for parts in names if parts[0] == "insvie_lightning" and len(parts) > 1}
    above = {other for other in rooms & FLOOR.keys() - {room} if FLOOR[other] > FLOOR[room]}
    assert not above, f"{room} (floor {FLOOR[room]}) imports {above} from above"


def test_no_files_know_each_other_in_a_circle() -> None:
    files = {".".join(("insvie_lightning", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    known = {module: set(imported(ast.walk(parse(path)))) & files.keys() - {module} for module, path in files.items()}
    assert len(known["insvie_lightning.builders.builder"]) > 5
    order = list(TopologicalSorter(known).static_order())  # refuses circles, and names them
    assert order.index("insvie_lightning.errors") < order.index("insvie_lightning.builders.builder")


@pytest.mark.parametrize("path", PLUGIN_MODULES, ids=name)
def test_plugins_import_no_heavy_package_at_the_top(path: Path) -> None:
    roots = {dotted.split(".")[0] for dotted in imported(at_import_time(parse(path)))}
    assert not HEAVY & roots


def test_the_checks_see_imports_at_every_depth() -> None:
    tree = ast.parse("import a.b\nif True:\n    from c import d\ndef f():\n    import e\n")
    assert list(imported(ast.walk(tree))) == ["a.b", "c", "c.d", "e"]
    assert list(imported(at_import_time(tree))) == ["a.b", "c", "c.d"]
