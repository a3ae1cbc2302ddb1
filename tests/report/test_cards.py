import numpy as np

from insvie_lightning.report.cards import run_cards
from insvie_lightning.report.curves import Metric
from insvie_lightning.report.run import Run, scores, steps_made


def metric(*values: float) -> Metric:
    return Metric((np.arange(len(values), dtype=float), np.array(values)), 0)


def test_scores_stand_beside_their_baselines() -> None:
    run = Run("test", {}, {"a_accuracy": 0.9, "copy_a_accuracy": 0.0, "untrained_a_accuracy": 0.1, "steps": 3}, "", ())
    cards = list(run_cards([run], [scores(run)]))
    notes = [(card.label, card.value, card.note) for card in cards]
    assert notes == [("a accuracy", "90 %", "copy of the source 0 % \u00b7 untrained 10 %")]


def test_training_is_the_last_run_that_trained() -> None:
    first = Run("s1", {"loss": metric(1.0, 0.5, 0.4)}, {}, "", ())
    last = Run("s2", {"loss": metric(0.4, 0.2), "samples_per_second": metric(1, 40, 41)}, {}, "", ())
    tested = Run("test", {"loss": metric(0.3)}, {}, "", ())
    cards = {card.label: card for card in run_cards([first, last, tested], [])}
    assert (cards["training steps"].value, cards["training steps"].note) == ("6", "s1 3 + s2 3")
    assert (cards["latest loss"].value, cards["latest loss"].note) == ("0.2", "from 0.4 in s2")
    assert cards["median throughput"].value == "40 /s"


def test_steps_are_those_that_were_made() -> None:
    """The first step that is logged is 0; the summary knows of steps after the last that was logged."""
    logged = {"loss": metric(1.0, 0.5, 0.4)}
    assert steps_made(Run("s1", logged, {}, "", ())) == 3
    assert steps_made(Run("s1", logged, {"steps": 5.0}, "", ())) == 5
    assert steps_made(Run("s1", logged, {"steps": 0}, "", ())) == 3  # a test in the same folder
