"""`insvie shards`: make, check, count and select data sets of shards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from insvie_lightning.batch import ORIGINS
from insvie_lightning.commands.parser import Parser

if TYPE_CHECKING:
    from insvie_lightning.shards.convert import Conversion


def main(argv: list[str]) -> int:
    """Run `insvie shards` with the arguments after it; return the exit status."""
    args = _parser().parse_args(argv)
    status: int = args.run(args)
    return status


def convert(args: argparse.Namespace) -> int:
    """Turn a released CSV, or a folder of source and edited videos, into shards; run again to continue."""
    from insvie_lightning.shards.convert import convert

    names = ("source_dir", "edited_dir", "origin", "dataset", "shard_size", "max_bad_rate")
    return _tell(args.dst, convert(args.src, args.dst, **{name: getattr(args, name) for name in names}, progress=True))


def index(args: argparse.Namespace) -> int:
    """Make a data set of a released CSV and its zips where they lie: only the manifest is written, in DST or beside."""
    from insvie_lightning.shards.index import index

    names = ("source_dir", "edited_dir", "origin", "dataset", "max_bad_rate")
    dst = args.dst or (args.src if args.src.is_dir() else args.src.parent)
    return _tell(dst, index(args.src, dst, **{name: getattr(args, name) for name in names}))


def _tell(dst: Path, result: Conversion) -> int:
    print(f"{result.samples} samples in {dst}, {result.rejected.total()} rows rejected")
    for reason, count in result.rejected.most_common():
        print(f"  {count} x {reason}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Hash every sample, and compare the tars with their manifest; exit with 1 if anything is wrong."""
    from insvie_lightning.shards.verify import verify

    report = verify(args.dir, progress=True)
    for problem in report.problems:
        print(": ".join(part for part in problem if part))
    found = f"{len(report.problems)} problems" if report.problems else "no problem"
    print(f"{report.samples} samples in {report.shards} shards checked: {found}")
    return 1 if report.problems else 0


def stats(args: argparse.Namespace) -> int:
    """Count a data set by origin, edit type, shape, score and reason for rejection."""
    from rich.console import Console

    from insvie_lightning.shards.stats import as_table, stats

    Console().print(as_table(stats(args.dir)))
    return 0


def composition(args: argparse.Namespace) -> int:
    """Count samples, sizes, mean judge score and mean end-point error by origin; write them as CSV or JSON, too."""
    from rich.console import Console

    from insvie_lightning.shards.composition import as_table, read_composition, write_composition

    composed = {args.dir.resolve().name: read_composition(args.dir)}
    if args.output:
        write_composition(composed, args.output)
    Console().print(as_table(composed))
    return 0


def select(args: argparse.Namespace) -> int:
    """Copy the samples that a clause keeps, such as "judge >= 4 and epe_px <= 2", into new shards or a list of keys."""
    from insvie_lightning.shards.select import select

    names = ("static_to_real", "seed", "shard_size")
    options = {name: getattr(args, name) for name in names}
    count = select(args.src, args.dst, args.where, args.keys_only, **options, progress=True)
    print(f"{count} samples in {args.dst}")
    return 0


def join(args: argparse.Namespace) -> int:
    """Copy all samples of several data sets, such as the routes of a build, into new shards; run again to continue."""
    from insvie_lightning.shards.join import join

    count = join(args.src, args.dst, args.shard_size, progress=True)
    print(f"{count} samples in {args.dst}")
    return 0


def compact(args: argparse.Namespace) -> int:
    """Merge the parts of a manifest into one file, which opens faster."""
    from insvie_lightning.shards.compact import compact

    print(compact(args.dir))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="insvie shards", description=sys.modules[__name__].__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for function in (convert, index, verify, stats, composition, select, join, compact):
        text = function.__doc__
        verb = verbs.add_parser(function.__name__, help=text, description=text)
        verb.set_defaults(run=function)
        for name in ("src", "dst") if function in (convert, index, select, join) else ("dir",):
            optional = {(index, "dst"): "?", (join, "src"): "+"}.get((function, name))
            verb.add_argument(name, type=Path, metavar=name.upper(), nargs=optional)
        if function in (convert, select, join):
            verb.add_argument("--shard-size", type=int, default=1000, help="rows per shard, default 1000")
        if function in (convert, index):
            for side in ("source", "edited"):
                text = (
                    f"folder of {side} videos, zip or pattern of zips ('{side}*.zip'), beside the CSV, default {side}"
                )
                verb.add_argument(f"--{side}-dir", default=side, help=text)
            verb.add_argument("--origin", choices=ORIGINS, help="of all samples; by default each name tells")
            verb.add_argument("--dataset", help="name of the data set; by default that of the folder")
            verb.add_argument(
                "--max-bad-rate", type=float, default=0.5, help="share of bad rows to stop at, default 0.5"
            )
        if function is composition:
            verb.add_argument("--output", type=Path, metavar="FILE", help="a .csv or .json file to write")
        if function is select:
            verb.add_argument("--where", required=True, help="a DuckDB condition over the columns of the manifest")
            verb.add_argument("--keys-only", action="store_true", help="write keys.txt instead of shards")
            text = "static samples to real ones, such as 5:1; the largest set that holds it"
            verb.add_argument("--static-to-real", metavar="RATIO", help=text)
            verb.add_argument("--seed", type=int, default=0, help="chooses what a ratio leaves out, default 0")
    return parser
