"""Claims: one owner each, taken over from the dead and from nobody else."""

import json
import multiprocessing
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from insvie_lightning.shards.ledger import CLAIMS, Ledger, Owner


def claims(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / CLAIMS).iterdir())


def leave(folder: Path, owner: Owner, unit: int = 0) -> Path:
    """Put a claim there as another process would have left it."""
    (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
    path = folder / CLAIMS / f"{unit:06d}.0"
    path.write_text(json.dumps(asdict(owner)))
    return path


def finish(folder: Path, unit: int) -> None:
    (folder / f"shard-{unit:06d}.parquet").touch()


def test_a_unit_is_claimed_held_finished_and_let_go(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    assert ledger.unfinished() == [0, 1, 2]
    assert ledger.claim(1) and ledger.holds(1) and not ledger.holds(0)
    assert claims(tmp_path) == ["000001.0"]
    finish(tmp_path, 1)
    ledger.release(1)
    assert claims(tmp_path) == [] and not ledger.holds(1)
    assert ledger.finished() == {1} and ledger.unfinished() == [0, 2]
    assert not ledger.claim(1)
    assert ledger.claim(0)
    ledger.close()
    assert claims(tmp_path) == []


def test_what_the_dead_left_is_tidied_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 1)
    leave(tmp_path, replace(Owner.here(), pid=2**22 + 1))
    finish(tmp_path, 0)
    for name in (".shard-000000.tar.vm-1.tmp", ".job.json.7.tmp", "funnel.json"):
        (tmp_path / name).touch()
    ledger.tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["funnel.json", "shard-000000.parquet"]


def test_of_many_who_claim_at_once_each_unit_goes_to_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue, start, done = context.Queue(), context.Event(), context.Event()

    def work() -> None:
        ledger = Ledger(tmp_path, 50)
        start.wait()
        queue.put([unit for unit in range(50) if ledger.claim(unit)])
        done.wait()  # the claims of a process that has ended are free

    workers = [context.Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    found = [queue.get(timeout=60) for _ in workers]
    done.set()
    for worker in workers:
        worker.join()
    assert sorted(unit for units in found for unit in units) == list(range(50))


def test_the_claim_of_a_live_process_is_left_alone(tmp_path: Path) -> None:
    parent = replace(Owner.here(), pid=os.getppid(), started="")
    parent = Owner(parent.host, parent.pid, Path(f"/proc/{parent.pid}/stat").read_text().rpartition(")")[2].split()[19])
    leave(tmp_path, parent)
    assert parent.alive
    assert not Ledger(tmp_path, 1, stale_seconds=0).claim(0)


@pytest.mark.parametrize(
    "owner",
    [
        replace(Owner.here(), pid=2**22 + 1),  # beyond any process number
        replace(Owner.here(), pid=os.getppid(), started="1"),  # the number was given to another process since
        Owner.here(),  # an earlier run in this very process, which does not hold it any more
    ],
)
def test_the_claim_of_a_dead_process_is_taken_over_at_once(owner: Owner, tmp_path: Path) -> None:
    leave(tmp_path, owner)
    (tmp_path / ".shard-000000.tar.vm-1.tmp").touch()
    (tmp_path / ".shard-000001.tar.vm-1.tmp").touch()
    ledger = Ledger(tmp_path, 2)
    assert ledger.claim(0) and ledger.holds(0) and claims(tmp_path) == ["000000.0", "000000.1"]
    assert [path.name for path in tmp_path.glob(".shard*")] == [".shard-000001.tar.vm-1.tmp"]
    ledger.release(0)
    assert claims(tmp_path) == []


def test_a_process_that_only_waits_to_be_buried_is_dead(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: Ledger(tmp_path, 1).claim(0) and os._exit(0))
    child.start()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert claims(tmp_path) == ["000000.0"]
    assert Ledger(tmp_path, 1).claim(0)
    child.join()


def test_another_machines_claim_is_stale_when_it_is_not_touched(tmp_path: Path) -> None:
    claim = leave(tmp_path, Owner("elsewhere", 1, "1"))
    ledger = Ledger(tmp_path, 1, stale_seconds=0.2)
    for _ in range(3):
        assert not ledger.claim(0)
        time.sleep(0.1)
        # The other machine's clock may be anywhere; what counts is that it ticks.
        os.utime(claim, ns=(0, 1_000 * claim.stat().st_mtime_ns // 999))
    assert not ledger.claim(0)
    time.sleep(0.25)
    assert ledger.claim(0)


def test_an_owner_that_was_taken_for_dead_does_not_finish(tmp_path: Path) -> None:
    slow = Ledger(tmp_path, 1)
    assert slow.claim(0)
    (tmp_path / CLAIMS / "000000.1").write_text("{}")
    assert not slow.holds(0)
    slow.release(0)
    assert claims(tmp_path) == ["000000.1"]


def test_who_wakes_up_when_others_have_finished_and_tidied_up_finds_nothing_to_do(tmp_path: Path) -> None:
    slow, fast = Ledger(tmp_path, 2), Ledger(tmp_path, 2)
    assert slow.claim(0)
    fast.tidy()
    assert not slow.holds(0) and not slow.claim(1)
    slow.release(0)
    slow.close()
    assert not (tmp_path / CLAIMS).exists()


def test_a_claim_without_a_name_is_waited_for_shortly(tmp_path: Path) -> None:
    leave(tmp_path, Owner.here()).write_text("")
    ledger = Ledger(tmp_path, 1, stale_seconds=0.1)
    assert not ledger.claim(0)
    time.sleep(0.15)
    assert ledger.claim(0)


def test_claims_are_touched_while_they_are_held(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 1, stale_seconds=0.2)
    assert ledger.claim(0)
    before = (tmp_path / CLAIMS / "000000.0").stat().st_mtime_ns
    time.sleep(0.2)
    assert (tmp_path / CLAIMS / "000000.0").stat().st_mtime_ns > before
    ledger.close()


def test_ten_thousand_units_cost_seconds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 10_000)
    begun = time.process_time()
    for unit in ledger.unfinished()[:1000]:
        assert ledger.claim(unit) and ledger.holds(unit)
        finish(tmp_path, unit)
        ledger.release(unit)
    assert len(ledger.unfinished()) == 9000
    assert time.process_time() - begun < 2  # a tenth of the units; about 0.4 s
