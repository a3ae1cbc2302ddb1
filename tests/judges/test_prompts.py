import hashlib

import numpy as np
import pytest

from insvie_lightning.judges import FILTERING, NONE_GOOD, QUALITY, SCREENING, TEMPORAL, TEXT, Question, pick_frames


def frames(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("prompt", "version", "wording"),
    [
        (TEMPORAL, "1", "4753443a0451"),
        (TEXT, "1", "6dad554ac480"),
        (QUALITY, "1", "aa7cedffe100"),
        (FILTERING, "1", "aa7cedffe100"),
        (SCREENING, "2", "cd88437b64ad"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_whoever_changes_a_prompt_gives_it_a_new_version(prompt, version, wording):
    """Answers in the cache are found by the version, so the two must change together, here too."""
    question = Question(prompt, "INSTRUCTION", frames(2), frames(3))
    texts = [part for part in (prompt.system, *question.content) if isinstance(part, str)]
    assert (prompt.version, hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]) == (version, wording)


def test_the_criteria_are_those_of_the_paper():
    """Supplement 7.2: four for screening, two more for filtering; 8: two each for the aspects of a test."""
    assert [len(prompt.criteria) for prompt in (SCREENING, FILTERING, QUALITY, TEMPORAL, TEXT)] == [4, 6, 6, 2, 2]
    assert set(TEMPORAL.criteria) | set(SCREENING.criteria) == set(FILTERING.criteria)
    assert FILTERING.request == QUALITY.request


def test_the_source_comes_first_then_the_edit():
    content = Question(TEXT, 'paint {it} "red"', frames(2), frames(3)).content
    assert 'paint {it} "red"' in content[0]
    assert "2 frames of a source" in content[0] and "3 frames of its edited" in content[0]
    shown = [part if isinstance(part, str) else int(part[0, 0, 0]) for part in content[1:]]
    assert shown == ["Source:", 0, 1, "Edited:", 0, 1, 2]
    assert content[0].endswith('for example {"score": 3}')


def test_screening_numbers_its_candidates_from_zero_and_may_reject_all():
    question = Question(SCREENING, "paint it", frames(1), frames(6))
    assert question.legal == (NONE_GOOD, 0, 1, 2, 3, 4, 5)
    assert "Answer -1 if none" in question.content[0] and question.read("{'best_image': -1}") == NONE_GOOD
    assert "6 candidates" in question.content[0] and "from 0 to 5" in question.content[0]
    assert "best_image" in question.content[0]


@pytest.mark.parametrize(
    ("count", "picked"),
    [(None, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 4, 7]), (1, [0]), (2, [0, 7]), (8, list(range(8))), (9, list(range(8)))],
)
def test_frames_are_picked_evenly_from_first_to_last(count, picked):
    assert pick_frames(frames(8), count)[:, 0, 0, 0].tolist() == picked
