"""Whatever is wrong with a file, a user gets one sentence or a quarantined sample, and loses nothing beside it."""

import os
import platform
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from corrupter import PLACES
from door import Door
from doors import DOORS
from trial import LATE, Larder, Outcome, attempt, fault_names

SMALL = ("empty", "noise", "a pipe")
"""Of each kind of toy file, through the first door."""
FIRST = {door.kind: door for door in reversed(DOORS) if door.files == "toy"}
REAL = {door.kind: door for door in reversed(DOORS) if door.files == "real"}


def name(value: object) -> str:
    return f"{value.files} {value.kind}: {value.name}" if isinstance(value, Door) else str(value)


@pytest.fixture(scope="module")
def larder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Larder:
    """Skips what needs real files where there are none."""
    return Larder(tmp_path_factory.mktemp("larder"), lambda: request.getfixturevalue("shared") / "real")


@pytest.mark.parametrize("door", [*FIRST.values(), *REAL.values()], ids=name)
def test_the_good_comes_through_every_door(door: Door, larder: Larder, tmp_path: Path) -> None:
    """Or every fault would seem to be found."""
    good = attempt(door, "nothing", larder[door], tmp_path / "x")
    assert good.ending == "read", good.said


@pytest.mark.parametrize("fault", SMALL)
@pytest.mark.parametrize("door", FIRST.values(), ids=name)
def test_a_spoilt_file_is_one_sentence_or_set_aside(door: Door, fault: str, larder: Larder, tmp_path: Path) -> None:
    outcome = attempt(door, fault, larder[door], tmp_path / "x")
    assert outcome.ending in ("refused", "set aside"), outcome.said


@pytest.mark.parametrize("door", REAL.values(), ids=name)
def test_a_spoilt_real_file_is_one_sentence_or_set_aside(door: Door, larder: Larder, tmp_path: Path) -> None:
    outcome = attempt(door, "noise", larder[door], tmp_path / "x")
    assert outcome.ending in ("refused", "set aside"), outcome.said


@pytest.mark.parametrize("fault", [*PLACES, LATE])
def test_a_picture_that_cannot_be_opened_is_set_aside(fault: str, larder: Larder, tmp_path: Path) -> None:
    door = FIRST["picture"]
    outcome = attempt(door, fault, larder[door], tmp_path / "x")
    assert outcome.ending in ("set aside", "read"), outcome.said


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("video", "a stream description", "no readable video"),  # FFmpeg would have waited for the network
        ("video", "a playlist", "no readable video"),
        ("video", "a bomb of 4 gigapixels", "pixels are read"),
        ("picture", "a bomb of 1.6 gigapixels", "it is too large"),
        ("zip", "names that leave", "source clip: no readable video"),
        ("JSON", "nested deeply", "nested too deeply"),
        ("YAML", "a bomb of aliases", "with its aliases it has more than 100,000 values"),
        ("YAML", "a callable", "a recipe may not name 'os.system'"),
        ("YAML", "a Python object", "could not determine a constructor"),
        ("checkpoint", "code", "which is not run"),
        ("checkpoint", "bare code, protocol 4", "b.pt"),
    ],
)
def test_an_attack_is_told_as_what_it_is(kind: str, fault: str, said: str, larder: Larder, tmp_path: Path) -> None:
    door = FIRST[kind]
    outcome = attempt(door, fault, larder[door], tmp_path / "x")
    assert outcome.ending in ("refused", "set aside") and said in outcome.said, outcome


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_every_fault_at_every_door(larder: Larder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table of docs/robustness.md; `INSVIE_ROBUSTNESS=FILE` also writes it there."""
    doors = DOORS if _real_files(larder) else [door for door in DOORS if door.files == "toy"]
    outcomes = [
        attempt(door, fault, larder[door], tmp_path / f"{door_number}-{number}")
        for door_number, door in enumerate(doors)
        for number, fault in enumerate(fault_names(door))
    ]
    text = table(outcomes)
    with capsys.disabled():
        print(f"\n{text}")
    if path := os.environ.get("INSVIE_ROBUSTNESS"):
        Path(path).write_text(text, encoding="utf-8")
    assert [each for each in outcomes if each.ending == "FAULT"] == []
    assert len(outcomes) >= 200


def _real_files(larder: Larder) -> bool:
    try:
        return larder.real().is_dir()
    except pytest.skip.Exception:
        return False


def table(outcomes: list[Outcome]) -> str:
    """The number of trials by kind of file and by what a user does, and how they ended."""
    here = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
    head = f"{len(outcomes)} spoilt inputs, {date.today():%d %B %Y}, {here}:"
    lines = [
        head,
        "",
        "| file | made | given to | inputs | refused in a sentence | set aside | still legal | faults | slowest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for door in DOORS:
        if not (those := [each for each in outcomes if each.door is door]):
            continue
        ends = Counter(each.ending for each in those)
        counts = " | ".join(str(ends[ending]) for ending in ("refused", "set aside", "read", "FAULT"))
        slowest = max(each.seconds for each in those)
        lines.append(f"| {door.kind} | {door.files} | {door.name} | {len(those)} | {counts} | {slowest:.1f} s |")
    return "\n".join(lines) + "\n"
