"""A judge by itself, before a model that says what it is told to; `test_server` has the real ones."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.judges import QUALITY, SCREENING, Question, VLMJudge
from insvie_lightning.judges.reply import Reply, Unavailable


class Scripted:
    """Gives its replies one after another, and notes what it is asked."""

    identity = {"model": "scripted"}  # noqa: RUF012

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Question, tuple[tuple[str, str], ...]]] = []

    def check(self) -> None:
        pass

    def reply(self, question: Question, earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        self.asked.append((question, earlier))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(reply, prompt_tokens=1000, completion_tokens=10)


FRAMES = np.zeros((2, 3, 4, 4), np.uint8)
ASKED = Question(QUALITY, "paint it", FRAMES, FRAMES + 1)


def questions(count: int) -> list[Question]:
    return [replace(ASKED, instruction=f"paint it {i}") for i in range(count)]


def test_a_score_with_tokens_and_cost(tmp_path):
    judge = VLMJudge(Scripted('{"score": 4}'), tmp_path, usd_per_million_input=2.5, usd_per_million_output=10)
    verdict = judge.ask(ASKED)
    assert (verdict.answer, verdict.reason, verdict.replies, verdict.cached) == (4, "", ('{"score": 4}',), False)
    assert (verdict.prompt_tokens, verdict.completion_tokens) == (1000, 10)
    assert verdict.usd == pytest.approx(1000 * 2.5e-6 + 10 * 10e-6)


def test_what_could_not_be_read_is_asked_for_again_with_what_was_wrong(tmp_path):
    model = Scripted("Well.", "{'score': 9}", "{'score': 2}")
    judge = VLMJudge(model, tmp_path)
    verdict = judge.ask(ASKED)
    assert (verdict.answer, verdict.reason) == (2, "")
    assert verdict.replies == ("Well.", "{'score': 9}", "{'score': 2}")
    assert verdict.prompt_tokens == 3000 and verdict.completion_tokens == 30
    assert [[text for text, _ in earlier] for _, earlier in model.asked] == [[], ["Well."], ["Well.", "{'score': 9}"]]
    assert "could not be read" in model.asked[1][1][0][1] and '{"score": 3}' in model.asked[1][1][0][1]


def test_after_so_many_replies_the_answer_is_missing_and_stays_so(tmp_path):
    model = Scripted("a", "b", "c", '{"score": 4}')
    judge = VLMJudge(model, tmp_path, reasks=2)
    verdict = judge.ask(ASKED)
    assert verdict.answer is None and "'c'" in verdict.reason and verdict.replies == ("a", "b", "c")
    again = judge.ask(ASKED)
    assert again == replace(verdict, cached=True) and len(model.asked) == 3
    assert VLMJudge(model, tmp_path, retry_missing=True).ask(ASKED).answer == 4
    assert VLMJudge(model, tmp_path, retry_missing=True).ask(ASKED).cached


def test_a_reply_that_was_cut_says_what_to_raise_and_does_not_stay_so(tmp_path):
    judge = VLMJudge(Scripted(Reply("<think>hm", cut=True), '{"score": 4}'), tmp_path, reasks=0)
    assert "raise max_tokens" in judge.ask(ASKED).reason
    assert judge.ask(ASKED).answer == 4


def test_a_refused_question_is_missing_but_not_kept(tmp_path):
    model = Scripted(Reply("", fault="too many pictures"), '{"score": 4}')
    judge = VLMJudge(model, tmp_path)
    verdict = judge.ask(ASKED)
    assert (verdict.answer, verdict.reason, verdict.replies) == (None, "too many pictures", ())
    assert judge.ask(ASKED).answer == 4


def test_the_cache_keeps_the_raw_replies_beside_what_was_asked(tmp_path):
    VLMJudge(Scripted("Hm.", "{'score': 2}"), tmp_path).ask(ASKED)
    (file,) = tmp_path.rglob("*.json")
    record = json.loads(file.read_text())
    assert record["answer"]["replies"] == ["Hm.", "{'score': 2}"]
    assert record["asked"]["model"] == "scripted" and record["asked"]["instruction"] == "paint it"
    assert (record["asked"]["prompt"], record["asked"]["version"]) == ("quality", QUALITY.version)


def test_an_answer_of_another_version_is_asked_for_again(tmp_path):
    model = Scripted('{"score": 4}', '{"score": 4}')
    judge = VLMJudge(model, tmp_path)
    judge.ask(ASKED)
    (file,) = tmp_path.rglob("*.json")
    file.write_text('{"asked": {}, "answer": {"score": 4}}')
    assert judge.ask(ASKED).answer == 4 and not judge.spent.cached and len(model.asked) == 2


def test_what_was_spent_counts_new_requests_only(tmp_path):
    replies = ['{"score": 4}', "hm", '{"score": 4}', "hm", "hm", "hm"]
    judge = VLMJudge(Scripted(*replies), tmp_path, concurrency=1, usd_per_million_input=1)
    list(judge.ask_all(questions(3)))
    list(judge.ask_all(questions(3)))
    spent = judge.spent
    assert (spent.questions, spent.cached, spent.missing, spent.requests) == (6, 3, 2, 6)
    assert (spent.prompt_tokens, spent.completion_tokens) == (6000, 60)
    assert spent.usd == spent.saved_usd == pytest.approx(0.006)
    assert str(spent).startswith("6 questions, 3 answered from the cache, 2 without an answer; 6 replies, 6000 + 60")


def test_many_questions_are_answered_in_order_and_drawn_as_needed():
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield replace(ASKED, instruction=str(drawn))

    class Echo(Scripted):
        def reply(self, question: Question, earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
            return Reply(str(int(question.instruction) % 5 + 1))

    answers = VLMJudge(Echo(), concurrency=3).ask_all(endless())
    assert [next(answers).answer for _ in range(20)] == [i % 5 + 1 for i in range(1, 21)]
    answers.close()
    assert drawn <= 26


def test_when_nobody_answers_the_rest_is_given_up(tmp_path):
    model = Scripted('{"score": 4}', '{"score": 3}', Unavailable("gone"), *['{"score": 1}'] * 9)
    judge = VLMJudge(model, tmp_path, concurrency=1)
    answers = judge.ask_all(questions(12))
    assert [next(answers).answer for _ in range(2)] == [4, 3]
    with pytest.raises(Unavailable, match="gone"):
        list(answers)
    assert len(model.asked) <= 5


def test_the_best_of_several_candidates():
    question = Question(SCREENING, "paint it", FRAMES[:1], np.zeros((6, 3, 4, 4), np.uint8))
    assert VLMJudge(Scripted("{'best_image': 5}")).ask(question).answer == 5


@pytest.mark.parametrize("options", [{"reasks": -1}, {"concurrency": 0}])
def test_numbers_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match="at least 0 and 1"):
        VLMJudge(Scripted(), **options)
