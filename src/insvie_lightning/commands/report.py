"""`insvie report`: one HTML page out of a run or a data set."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from insvie_lightning.commands.parser import Parser


def main(argv: Sequence[str]) -> int:
    """Write the page and print its path.

    Raises:
        InputError: The folder is neither a run nor a data set, or a file in it is broken.
    """
    parser = Parser(prog="insvie report", description="Make one HTML page out of a run or a data set.")
    parser.add_argument(
        "folder", type=Path, metavar="RUN_OR_DATASET", help="a run, a data set, or a folder of several of either"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page; report.html in the folder by default")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    arguments = parser.parse_args(argv)

    from insvie_lightning.report.page import write_report

    page = write_report(arguments.folder, arguments.output)
    print(page)
    if arguments.open:
        webbrowser.open(page.resolve().as_uri())
    return 0
