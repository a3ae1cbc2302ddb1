"""The `insvie` command: answers help at once, then hands the verb to the module that knows it."""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise

import insvie_lightning
from insvie_lightning.errors import InputError, Stopped, nearest

LIGHTNING_VERBS = {
    "fit": "train what a recipe says; a rerun goes on where the last one stopped",
    "validate": "score the validation set of a recipe",
    "test": "score the test set of a recipe",
    "predict": "run a builder of a recipe: make or encode a data set",
}
COMMANDS = {
    "build": "run the steps that build data one after the other",
    "edit": "edit one video by an instruction",
    "shards": "convert, verify, select, join and count data sets",
    "weights": "read released checkpoints, and write editors for other programs",
    "explain": "print everything that made a sample of a data set",
    "report": "make one HTML page out of a run or a data set",
    "list": "what is registered: plug-ins by family, and the shipped recipes",
    "doctor": "what this machine has and lacks, and what to do about it",
}
VERBS = LIGHTNING_VERBS | COMMANDS
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
"""What is wrong with a disk, not with the program: full, not ours to write, failing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `insvie VERB ...` and return the exit status: 0 done, 2 bad input, 130 stopped by Ctrl+C, 143 by SIGTERM.

    Args:
        argv: The arguments after `insvie`; those of the process when None.
    """
    verb, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print(_help())
        return 0
    if verb == "--version":
        print(f"insvie {insvie_lightning.__version__}")
        return 0
    _quiet_threads()
    try:
        return _run(verb, rest)
    except InputError as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{(error.strerror or str(error)).lower()}; mend it and run again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _stopped(verb)
    except Stopped as end:
        print(f"stopped: {end.message}", file=sys.stderr)
        return int(end.code or 0)
    except SystemExit as end:
        # Lightning turns Ctrl+C into exit(1) after it has shut its workers down.
        if isinstance(end.__context__, KeyboardInterrupt):
            return _stopped(verb)
        raise


def _run(verb: str, rest: list[str]) -> int:
    if verb in LIGHTNING_VERBS:
        given = [value for option, value in pairwise(rest) if option in ("-c", "--config")]
        if given and ("-h" in rest or "--help" in rest):
            from insvie_lightning.config import describe

            print(describe(verb, given))
            return 0
        from insvie_lightning.commands.lightning_cli import InsvieCLI

        InsvieCLI([verb, *rest])
        return 0
    if verb in COMMANDS:
        status: int = import_module(f"insvie_lightning.commands.{verb}").main(rest)
        return status
    raise InputError(f"no verb {verb!r}: insvie knows {', '.join(VERBS)}{nearest(verb, VERBS)}")


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}{meaning}" for verb, meaning in VERBS.items())
    return (
        "usage: insvie VERB [options]\n\n"
        "Instruction-based video editing: build the data, train the editor, edit and score videos.\n\n"
        f"verbs:\n{verbs}\n\n"
        "insvie VERB --help tells more about one; insvie --version prints the version.\n"
        "-c takes a YAML file or the name of a shipped recipe; later ones overlay earlier ones: insvie fit -c s1 -c toy"
    )


def _quiet_threads() -> None:
    """Set what the libraries read from the environment when they are loaded, unless the user has."""
    # OpenMP threads that spin while they wait make training many times slower beside any second busy process; a
    # thousand turns are harmless there, and save a fifth of a toy step on a quiet machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _sentence(error: InputError) -> str:
    """Return the message on one line, without the traceback that torch puts around one raised in a data worker."""
    marker = f"{InputError.__module__}.{InputError.__qualname__}: "
    return " ".join(str(error).rpartition(marker)[2].split())


def _stopped(verb: str) -> int:
    print(f"stopped: insvie {verb} was interrupted by Ctrl+C", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main())
