"""The judge's scores as a metric, before the tiny model of `tests/judges` and before a server that is not there."""

import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.judges import Question, VLMJudge
from insvie_lightning.judges.local import LocalModel
from insvie_lightning.judges.reply import Reply, Unavailable
from insvie_lightning.judges.server import Server
from insvie_lightning.metrics.judge import JudgeScores

TINY_VLM = Path(__file__).parents[1] / "judges/tiny_vlm"
WHITE, BLACK = 225, 30


class Noted:
    """Answers by the number of its questions so far, and notes them; says nothing from a certain one on."""

    identity = {"model": "noted"}  # noqa: RUF012

    def __init__(self, *replies: str) -> None:
        self.replies = replies
        self.asked: list[Question] = []

    def check(self) -> None:
        pass

    def reply(self, question: Question, earlier: Any = ()) -> Reply:
        self.asked.append(question)
        if len(self.asked) > len(self.replies):
            raise Unavailable("the server is gone")
        return Reply(self.replies[len(self.asked) - 1], prompt_tokens=1, completion_tokens=2)


def clips(*values: int, frames: int = 4) -> torch.Tensor:
    levels = torch.tensor(values, dtype=torch.uint8)
    return levels[:, None, None, None, None].expand(-1, frames, 3, 56, 56).contiguous()


def batch(keys: str, instruction: str = "make it white") -> EditBatch:
    return EditBatch(tuple(keys), (instruction,) * len(keys), source=clips(*[BLACK] * len(keys)))


def test_three_scores_of_what_a_real_model_sees():
    metric = JudgeScores(VLMJudge(LocalModel(str(TINY_VLM), "cpu", 32)))
    metric.prepare()
    metric.update(batch("ab"), EditedVideos(clips(WHITE, BLACK)))
    assert metric.rows == {"a": (5, 5, 5), "b": (1, 1, 1)}
    assert metric.names == ("judge_temporal", "judge_text", "judge_quality")
    assert {name: value.item() for name, value in metric.compute().items()} == dict.fromkeys(metric.names, 3.0)
    assert [verdict.replies for verdict in metric.verdicts["a"]] == [('{"score": 5}',)] * 3


def test_all_frames_are_shown_or_some():
    for frames, shown in ((None, 4), (3, 3)):
        model = Noted("5", "4", "3")
        metric = JudgeScores(VLMJudge(model, concurrency=1), frames)
        metric.update(batch("a"), EditedVideos(clips(WHITE)))
        assert metric.rows["a"] == (5, 4, 3)
        assert [question.prompt.name for question in model.asked] == ["temporal", "text", "quality"]
        for question in model.asked:
            assert question.source.shape == question.edited.shape == (shown, 3, 56, 56)
            assert (question.source == BLACK).all() and (question.edited == WHITE).all()
            assert question.instruction == "make it white"


def test_a_missing_score_is_counted_and_its_reason_kept():
    metric = JudgeScores(VLMJudge(Noted("5", "no idea", "3", "1", "1", "1"), reasks=0, concurrency=1))
    metric.update(batch("ab"), EditedVideos(clips(WHITE, BLACK)))
    assert math.isnan(metric.rows["a"][1])
    result = metric.compute()
    assert (result["judge_temporal"], result["judge_text"], result["judge_quality"]) == (3, 1, 2)
    assert result["judge_text_missing"] == 1 and "judge_quality_missing" not in result
    assert "'no idea'" in metric.verdicts["a"][1].reason and metric.verdicts["a"][1].replies == ("no idea",)


def test_when_nobody_answers_scores_are_missing_and_the_rest_goes_on(tmp_path):
    model = Noted("5", "4", "3", "2")
    metric = JudgeScores(VLMJudge(model, tmp_path, concurrency=1))
    with pytest.warns(UserWarning, match="missing from here on: the server is gone") as warned:
        metric.update(batch("abc"), EditedVideos(clips(WHITE, BLACK, 100)))
    assert len(warned) == 1 and len(model.asked) <= 6
    assert metric.rows["a"] == (5, 4, 3)
    assert metric.rows["b"][0] == 2  # was answered before the end, and is in the cache
    assert all(map(math.isnan, (*metric.rows["b"][1:], *metric.rows["c"])))
    assert metric.compute()["judge_text_missing"] == 2
    assert metric.verdicts["c"][0].reason == "the server is gone"

    metric.reset()
    model.replies = ("1",) * 99
    metric.update(batch("abc"), EditedVideos(clips(WHITE, BLACK, 100)))
    assert metric.rows == {"a": (5, 4, 3), "b": (2, 1, 1), "c": (1, 1, 1)}


def test_what_all_processes_have_spent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("insvie_lightning.metrics.judge.rank_zero_info", said.append)
    metric = JudgeScores(VLMJudge(Noted(*"123456789"), concurrency=1, usd_per_million_input=1e6))
    metric.update(batch("ab"), EditedVideos(clips(WHITE, BLACK)))
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda value, group: [value, value]  # another process with the same
    metric.compute()
    # 1 2 3 for the one; 4, 5 and three replies that are no score for the other.
    assert said == [
        "judge: 12 questions, 0 answered from the cache, 2 without an answer; 16 replies, 16 + 32 tokens, $16.00"
    ]
    metric.reset()
    metric.compute()
    assert len(said) == 1  # nothing was asked since


def test_a_server_that_is_not_there_is_said_before_the_work(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metric = JudgeScores(VLMJudge(Server("m", f"http://127.0.0.1:{free.getsockname()[1]}/v1")))
        with pytest.raises(InputError, match="cannot be reached"):
            metric.prepare()


def test_what_cannot_be_judged_is_one_sentence():
    with pytest.raises(InputError, match="sample 'a' has no instruction"):
        JudgeScores(VLMJudge(Noted())).update(batch("a", ""), EditedVideos(clips(WHITE)))
    with pytest.raises(InputError, match="at least one frame of each clip, not 0"):
        JudgeScores(VLMJudge(Noted()), frames=0)
