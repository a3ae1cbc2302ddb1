"""The log of a run loses nothing of an earlier run in the same folder."""

from pathlib import Path
from typing import Any

import pytest

from insvie_callbacks.run_log import RunLog


def test_metrics_lie_in_the_folder_and_earlier_ones_are_kept(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    texts = []
    for steps in (2, 3, 4):
        make_trainer(tmp_path, logger=RunLog(str(tmp_path)), log_every_n_steps=1).fit(make_editor(), numbers(steps))
        texts.append((tmp_path / "metrics.csv").read_text())
    assert not [found for found in recwarn if "will be deleted" in str(found.message)]
    assert len(set(texts)) == 3 and all(text.count("\n") > 2 for text in texts)
    assert (tmp_path / "metrics.1.csv").read_text() == texts[0]
    assert (tmp_path / "metrics.2.csv").read_text() == texts[1]
