"""A route as one command: which commands it is, what is refused before the first one runs, and what a rerun does."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from insvie_lightning.cli import main as insvie
from insvie_lightning.commands import build
from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.config import config_root, header, recipes
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify

CHAINS = [name for name, opening in recipes().items() if opening.startswith("Chain:")]
ROUTES = [("build_insvie", route) for route in ("real", "static", "pair", "sets")] + [("build_insvie_toy", "real")]


def steps(chain: str, route: str) -> dict[str, list[str]]:
    return build.read_steps(config_root() / f"{chain}.yaml", route)


def option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize(("chain", "route"), ROUTES)
def test_every_step_of_a_shipped_chain_is_legal_and_reads_what_the_one_before_made(
    chain: str, route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = None
    for command in steps(chain, route).values():
        if command[0] == "predict":
            cli = InsvieCLI([*command[1:], "--trainer.accelerator=cpu", "--trainer.devices=1"], run=False)
            assert made is None or Path(made) == cli.datamodule.shards
            made = option(command, "--model.output")
        else:
            made = command[-1]
            joined = {option(list(steps(chain, other).values())[-1], "--model.output") for other in ROUTES_OF[chain]}
            assert set(command[2:-1]) == joined


ROUTES_OF = {"build_insvie": ("real", "static", "pair")}


def test_all_chains_are_tested_and_named_by_their_header() -> None:
    assert sorted({chain for chain, _ in ROUTES}) == sorted(CHAINS)
    assert all(header(config_root() / f"{chain}.yaml").startswith("Chain: ") for chain in CHAINS)


def chain_file(folder: Path, **routes: dict[str, str]) -> Path:
    path = folder / "chain.yaml"
    path.write_text(json.dumps(routes))
    return path


@pytest.fixture
def route(tmp_path: Path) -> Callable[..., int]:
    """Run a chain of two toy steps in this process: build toy triplets, then filter them."""
    a, b, c = (tmp_path / name for name in "abc")
    quiet = f"--trainer.enable_progress_bar false --trainer.default_root_dir {tmp_path}/run"
    toy = f"insvie predict -c build_toy --data.samples 6 --model.output {a} {quiet}"
    judged = f"--model.judge.model insvie_lightning.toy.judge.ToyJudge --model.judge.cache {tmp_path}/answers"
    cpu = "--data.num_workers 0 --trainer.accelerator cpu --trainer.devices 1"
    filtered = f"insvie predict -c build_filter --data.shards {a} --model.output {b} {judged} {cpu} {quiet}"
    chain = chain_file(tmp_path, toy={"draw": toy, "filter": filtered}, last={"join": f"insvie shards join {a} {c}"})

    def run(*options: str, name: str = "toy", by: Callable[[Sequence[str]], int] = insvie) -> int:
        return build.main([name, "-c", str(chain), *options], by)

    return run


def test_a_route_runs_its_steps_in_order_and_a_rerun_changes_nothing(
    route: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert route("--draw.model.flawed", "0", "--filter.model.min_judge=1") == 0
    made, kept = (open_manifest(tmp_path / name).query(accepted_only=False) for name in "ab")
    assert len(made) == len(kept) == 6
    assert {json.loads(text)["filter"]["min_judge"] for text in kept["lineage"].to_pylist()} == {1}
    before = hashes(tmp_path)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    assert [line.split()[3:5] for line in printed] == [["-c", "build_toy"], ["-c", "build_filter"]]
    # Nothing is loaded for a step that is finished, so that a rerun costs nothing.
    monkeypatch.setattr("insvie_lightning.builders.filter.FilterTriplets.configure_model", None)
    assert route("--draw.model.flawed=0", "--filter.model.min_judge=1") == 0
    assert hashes(tmp_path) == before
    assert "funnel" in capsys.readouterr().out
    assert route("--draw.model.flawed=0", "--filter.model.min_judge=2") == 2  # not what is there
    assert "min_judge is 1.0, this one's 2.0" in capsys.readouterr().err


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*/shard-*"))}


def test_routes_are_joined(route: Callable[..., int], tmp_path: Path) -> None:
    assert route() == 0 and route(name="last") == 0
    assert not verify(tmp_path / "c").problems
    assert (
        open_manifest(tmp_path / "c").query(accepted_only=False)["key"]
        == open_manifest(tmp_path / "a").query(accepted_only=False)["key"]
    )


def test_a_step_that_fails_ends_the_route_with_its_status(route: Callable[..., int], tmp_path: Path) -> None:
    ran: list[str] = []

    def run(command: Sequence[str]) -> int:
        ran.append(option(command, "-c"))
        return 7

    assert route(by=run) == 7 and ran == ["build_toy"]


def test_printed_commands_are_not_run(route: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    def run(command: Sequence[str]) -> int:
        raise AssertionError(command)

    assert route("--print", "--filter.model.min_judge", "2", by=run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("$ insvie predict -c build_toy --data.samples 6 ")
    assert lines[1].endswith("--model.min_judge 2")


@pytest.mark.parametrize(
    ("options", "name", "sentence"),
    [
        (["--filtr.model.min_judge=1"], "toy", "goes to one of the steps draw, filter; did you mean 'filter'?"),
        (["--verbose"], "toy", "no option '--verbose' here"),
        (["x"], "toy", "no option 'x' here; options are --STEP.OPTION VALUE"),
        (["--filter.model.min_judg=1"], "toy", "step 'filter': model: FilterTriplets takes no 'min_judg'"),
        ([], "tot", "has no route 'tot'; it has toy, last; did you mean 'toy'?"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_anything_runs(
    route: Callable[..., int], tmp_path: Path, options: list[str], name: str, sentence: str
) -> None:
    def run(command: Sequence[str]) -> int:
        raise AssertionError(command)

    with pytest.raises(InputError) as error:
        route(*options, name=name, by=run)
    assert sentence in str(error.value)


@pytest.mark.parametrize("text", ["[1, 2]", "toy: [a]", "toy: {a: 3}", "{", "toy: {a: insvie 'x}"])
def test_a_file_that_is_no_chain_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "chain.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="is no chain: a YAML file of routes, each of steps, each a command"):
        build.read_steps(path, "toy")


@pytest.mark.parametrize("command", ["rm -rf data", "insvie", ""])
def test_a_step_is_nothing_but_a_command_of_insvie(tmp_path: Path, command: str) -> None:
    path = chain_file(tmp_path, toy={"a": command})
    with pytest.raises(InputError, match="the step 'a' is no command of insvie"):
        build.read_steps(path, "toy")


def test_a_process_runs_a_step(tmp_path: Path) -> None:
    command = "insvie shards stats nothing"
    path = chain_file(tmp_path, toy={"count": command})
    ended = subprocess.run(
        [sys.executable, "-m", "insvie_lightning.cli", "build", "toy", "-c", str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2 and ended.stdout == f"$ {command}\n"
    assert ended.stderr.startswith("error: nothing is no folder of shards")
