"""`insvie build`: run the steps of a route of building data one after the other."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from insvie_lightning.commands.parser import Parser
from insvie_lightning.config import find_config
from insvie_lightning.errors import InputError, nearest

Run = Callable[[Sequence[str]], int]
"""Runs `insvie` with arguments, and returns its exit status."""


def main(argv: Sequence[str], run: Run | None = None) -> int:
    """Run the steps of a route that are not finished; return the exit status of the first one that fails, else 0.

    Each step is a process of its own, so that it has the whole memory and may start one process a GPU. A step that is
    finished ends at once.

    Args:
        argv: The arguments after `insvie build`.
        run: How a step is run; None starts a process.

    Raises:
        InputError: There is no such chain, route or step, or the arguments of a step are not legal: all are read before
            the first one runs.
    """
    parser = Parser(
        prog="insvie build",
        description="Run the steps of a route of building data one after the other; run again to continue.",
        epilog="--STEP.OPTION VALUE goes to one step: --captions.data.videos FOLDER",
    )
    parser.add_argument("route", help="its name in the chain: real, static, pair or sets in build_insvie")
    parser.add_argument("-c", "--config", default="build_insvie", help="a YAML file or the name of a shipped chain")
    parser.add_argument("--print", action="store_true", dest="printed", help="print the commands, and run none")
    arguments, rest = parser.parse_known_args(argv)
    steps = read_steps(Path(find_config(arguments.config)), arguments.route)
    commands = _give(steps, rest)
    if not arguments.printed:
        for name, command in commands.items():
            _check(name, command)
    for command in commands.values():
        print(f"$ {shlex.join(['insvie', *command])}", flush=True)
        if not arguments.printed and (status := (run or _run)(command)):
            return status
    return 0


def read_steps(chain: Path, route: str) -> dict[str, list[str]]:
    """Read the steps of a route: name -> arguments of `insvie`.

    Args:
        chain: A YAML file: route -> step -> a command that starts with `insvie`.
        route: One of them.

    Raises:
        InputError: The file is no chain, or has no such route.
    """
    import yaml

    try:
        routes = yaml.safe_load(chain.read_text(encoding="utf-8"))
        steps = {name: {step: shlex.split(text) for step, text in chained.items()} for name, chained in routes.items()}
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        raise InputError(f"{chain} is no chain: a YAML file of routes, each of steps, each a command") from None
    if route not in steps:
        raise InputError(f"{chain} has no route {route!r}; it has {', '.join(steps)}{nearest(route, steps)}")
    for step, command in steps[route].items():
        if command[:1] != ["insvie"] or len(command) < 2:
            raise InputError(f"{chain}: the step {step!r} is no command of insvie: {shlex.join(command)}")
    return {step: command[1:] for step, command in steps[route].items()}


def _give(steps: Mapping[str, Sequence[str]], options: Sequence[str]) -> dict[str, list[str]]:
    """The commands, each with the options `--STEP.OPTION` that are for it."""
    commands = {step: list(command) for step, command in steps.items()}
    step = None
    for option in options:
        if option.startswith("--"):
            step, dot, name = option[2:].partition(".")
            if not dot or step not in commands:
                said = f"no option {option!r} here; --STEP.OPTION goes to one of the steps {', '.join(commands)}"
                raise InputError(f"{said}{nearest(step, commands)}")
            commands[step].append(f"--{name}")
        elif step is None:
            raise InputError(f"no option {option!r} here; options are --STEP.OPTION VALUE")
        else:
            commands[step].append(option)
    return commands


def _check(step: str, command: Sequence[str]) -> None:
    """Read the arguments of a step, so that what is wrong with the last one is told before the first one runs."""
    if command[0] != "predict":
        return
    from insvie_lightning.commands.lightning_cli import InsvieCLI

    logging.disable(logging.INFO)  # what Lightning tells of every trainer
    try:
        InsvieCLI(list(command[1:]), run=False)
    except InputError as error:
        raise InputError(f"step {step!r}: {error}") from error
    finally:
        logging.disable(logging.NOTSET)


def _run(command: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "insvie_lightning.cli", *command], check=False).returncode
