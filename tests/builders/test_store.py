"""Where results go, when the unit that they are of has gone to another process in the meantime."""

from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Draft
from insvie_lightning.builders.store import Store, Tally
from insvie_lightning.builders.units import Input
from insvie_lightning.shards.ledger import CLAIMS, Ledger
from insvie_lightning.shards.manifest import open_manifest


def draft(text: str) -> Draft:
    return Draft("a", Clip(np.zeros((1, 3, 4, 4), np.uint8), 8.0), instruction=text)


@pytest.mark.parametrize("begun", [False, True])
def test_who_was_silent_until_another_one_finished_his_unit_writes_nothing(begun: bool, tmp_path: Path) -> None:
    slow, fast = Ledger(tmp_path, 1), Ledger(tmp_path, 1)
    late = Store(slow, False, Tally())
    assert slow.claim(0)
    if begun:
        late.add(Input(draft("late")), draft("late"), "", 0)
    for claim in (tmp_path / CLAIMS).iterdir():
        claim.write_text('{"host": "gone", "pid": 1, "started": ""}')
    fast.stale_seconds = -1.0  # everything of another machine is stale
    assert fast.claim(0)
    other = Store(fast, False, Tally())
    other.add(Input(draft("first")), draft("first"), "", 0)
    other.finish(0)
    if not begun:
        late.add(Input(draft("late")), draft("late"), "", 0)
    late.finish(0)
    assert open_manifest(tmp_path).query()["instruction"].to_pylist() == ["first"]
    assert not list((tmp_path / CLAIMS).iterdir()) and not list(tmp_path.glob(".shard*"))
    late.close()
    other.close()
