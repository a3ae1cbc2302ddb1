import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from insvie_lightning.judges import QUALITY, TEXT, Question
from insvie_lightning.judges.cache import AnswerCache, describe

IDENTITY = {"model": "m", "detail": "auto", "temperature": 0.0}
FRAMES = np.zeros((2, 3, 4, 4), np.uint8)
ASKED = Question(QUALITY, "paint it", FRAMES, FRAMES + 1)


def other_pixel(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    frames[-1, -1, -1, -1] ^= 1
    return frames


@pytest.mark.parametrize(
    ("identity", "question"),
    [
        (IDENTITY | {"model": "n"}, ASKED),
        (IDENTITY | {"detail": "low"}, ASKED),
        (IDENTITY | {"temperature": 1.0}, ASKED),
        (IDENTITY, replace(ASKED, prompt=TEXT)),
        (IDENTITY, replace(ASKED, prompt=replace(QUALITY, version="2"))),
        (IDENTITY, replace(ASKED, instruction="paint it red")),
        (IDENTITY, replace(ASKED, source=other_pixel(ASKED.source))),
        (IDENTITY, replace(ASKED, edited=other_pixel(ASKED.edited))),
        (IDENTITY, replace(ASKED, source=ASKED.edited, edited=ASKED.source)),
        (IDENTITY, replace(ASKED, source=FRAMES.reshape(2, 3, 2, 8))),
        (IDENTITY, replace(ASKED, source=FRAMES[:1])),
    ],
)
def test_another_question_has_another_answer(tmp_path, identity, question):
    cache = AnswerCache(tmp_path)
    cache.write(describe(IDENTITY, ASKED), {"answer": 4})
    assert cache.read(describe(identity, question)) is None
    same = replace(ASKED, source=ASKED.source[::-1][::-1], edited=np.asfortranarray(ASKED.edited))
    assert cache.read(describe(dict(reversed(IDENTITY.items())), same)) == {"answer": 4}


@pytest.mark.parametrize("content", [b"", b'{"asked": {}, "answer": {"ans', b"[]", b'{"answer": 4}', b"\xff\xfe"])
def test_a_broken_file_counts_as_absent_and_is_replaced(tmp_path, content):
    cache, asked = AnswerCache(tmp_path), describe(IDENTITY, ASKED)
    cache.write(asked, {"answer": 4})
    cache.path(asked).write_bytes(content)
    assert cache.read(asked) is None
    cache.write(asked, {"answer": 5})
    assert cache.read(asked) == {"answer": 5}


def test_a_folder_that_is_not_there_is_empty_and_a_failed_write_leaves_no_answer(tmp_path, monkeypatch):
    cache, asked = AnswerCache(tmp_path / "new"), describe(IDENTITY, ASKED)
    assert cache.read(asked) is None

    def power_cut(*paths):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        cache.write(asked, {"answer": 4})
    assert cache.read(asked) is None


WRITER = """
import sys
from pathlib import Path
from insvie_lightning.judges.cache import AnswerCache
cache = AnswerCache(Path(sys.argv[1]))
for i in range(150):
    number = i % 5
    cache.write({"number": number}, {"answer": number, "replies": [str(number) * 20000]})
    for other in range(5):
        found = cache.read({"number": other})
        assert i < 5 or found == {"answer": other, "replies": [str(other) * 20000]}, found and found["answer"]
"""


def test_several_processes_write_the_same_answers(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5 and all(path.suffix == ".json" for path in files)
