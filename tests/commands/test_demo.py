"""The demo's folders, whose order is that of its page."""

from insvie_lightning.commands.demo import STEPS, UNTRAINED


def test_the_trained_editor_s_test_is_the_last_run() -> None:
    runs = [UNTRAINED, *STEPS, "test"]
    assert sorted(runs) == runs
