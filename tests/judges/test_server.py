"""A real HTTP server with a real vision-language model behind it; see `conftest`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.judges import VLMJudge
from insvie_lightning.judges.reply import Unavailable
from insvie_lightning.judges.server import Server

MODEL = "tiny-vlm"
QUOTA = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota", "param": None}}
BUSY = {"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}


def server(at: Any, **options: Any) -> Server:
    return Server(MODEL, at.url, **{"max_retries": 1} | options)


def asked_of(judge_server: Any) -> list[str]:
    """The user's words in each request."""
    return [body["messages"][1]["content"][0]["text"] for body in judge_server.requests]


@pytest.mark.parametrize("answer", [1, 2, 3, 4, 5])
def test_a_score_of_what_the_model_sees(judge_server, make_question, answer):
    verdict = VLMJudge(server(judge_server), usd_per_million_input=10).ask(make_question(answer))
    assert (verdict.answer, verdict.reason) == (answer, "")
    assert verdict.replies == (f'{{"score": {answer}}}',)
    assert verdict.prompt_tokens > 50 and verdict.completion_tokens == len(verdict.replies[0]) + 1
    assert verdict.usd == pytest.approx(verdict.prompt_tokens * 10e-6)


def test_the_request_is_what_servers_understand(judge_server, make_question):
    server(judge_server, detail="low").reply(make_question())
    (body,) = judge_server.requests
    system, user = body["messages"]
    assert system["role"] == "system" and "strict and fair" in system["content"] and user["role"] == "user"
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "text", "image_url", "image_url", "text", "image_url", "image_url"]
    image = user["content"][2]["image_url"]
    assert image["url"].startswith("data:image/jpeg;base64,") and image["detail"] == "low"
    assert (body["temperature"], body["max_completion_tokens"]) == (0, 256)
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert "max_tokens" not in body
    server(judge_server, temperature=None).reply(make_question())
    _, body = judge_server.requests
    assert "temperature" not in body and '"detail"' not in json.dumps(body)


def test_a_malformed_reply_is_asked_for_again_and_recorded(judge_server, make_question, tmp_path):
    judge_server.faults.extend(["I would rather not.", None])
    verdict = VLMJudge(server(judge_server), tmp_path).ask(make_question(4))
    assert verdict.answer == 4 and verdict.replies == ("I would rather not.", '{"score": 4}')
    again = judge_server.requests[1]["messages"]
    assert [message["role"] for message in again] == ["system", "user", "assistant", "user"]
    assert again[2]["content"] == "I would rather not." and "could not be read" in again[3]["content"]


def test_a_reply_that_stays_malformed_is_missing_with_the_reason(judge_server, make_question, tmp_path):
    """Four tokens are too few for the model's answer, so that it is cut each time."""
    verdict = VLMJudge(server(judge_server, max_tokens=4), tmp_path, reasks=2).ask(make_question())
    assert verdict.answer is None and verdict.replies == ('{"sc',) * 3 and len(judge_server.requests) == 3
    assert "has no 'score'" in verdict.reason and "raise max_tokens" in verdict.reason


def test_a_server_in_a_hurry_is_given_the_time_it_asks_for(judge_server, make_question):
    judge_server.faults.append((429, {"Retry-After": "0.9"}, BUSY))
    assert VLMJudge(server(judge_server)).ask(make_question(2)).answer == 2
    first, second = judge_server.times
    assert 0.9 <= second - first < 5


def test_a_server_that_stays_in_a_hurry_is_left_in_one_sentence(judge_server, make_question):
    judge_server.faults.extend([(429, {"Retry-After": "0.01"}, BUSY)] * 9)
    with pytest.raises(Unavailable, match="after 2 retries that requests come too fast; lower the concurrency"):
        VLMJudge(server(judge_server, max_retries=2)).ask(make_question())
    assert len(judge_server.requests) == 3


def test_an_account_that_is_used_up_is_not_asked_again(judge_server, make_question):
    judge_server.faults.extend([(429, {"Retry-After": "0.01"}, QUOTA)] * 9)
    with pytest.raises(Unavailable, match="the account's quota is used up") as error:
        VLMJudge(server(judge_server, max_retries=6)).ask(make_question())
    assert len(judge_server.requests) == 1 and "\n" not in str(error.value)


def test_a_passing_failure_is_retried(judge_server, make_question):
    judge_server.faults.append((503, {}, {"error": {"message": "starting"}}))
    assert VLMJudge(server(judge_server)).ask(make_question(5)).answer == 5


def test_a_killed_server_is_resumed_from_the_cache_without_asking_twice(start_server, make_question, tmp_path):
    questions = [make_question(i % 5 + 1, f"make it white {i}") for i in range(12)]
    first = start_server()
    first.dies_at = 7
    judge = VLMJudge(server(first, max_retries=0), tmp_path, concurrency=3)
    with pytest.raises(Unavailable, match="cannot be reached") as error:
        list(judge.ask_all(questions))
    assert "a rerun asks only for what the cache lacks" in str(error.value)
    answered = len(list(tmp_path.rglob("*.json")))
    assert 5 <= answered <= 7

    second = start_server()
    verdicts = list(VLMJudge(server(second), tmp_path, concurrency=3).ask_all(questions))
    assert [verdict.answer for verdict in verdicts] == [i % 5 + 1 for i in range(12)]
    assert sum(verdict.cached for verdict in verdicts) == answered
    assert len(second.requests) == 12 - answered == len(set(asked_of(second)))
    list(VLMJudge(server(second), tmp_path).ask_all(questions))
    assert len(second.requests) == 12 - answered


def test_questions_are_asked_at_the_same_time(judge_server, make_question):
    judge_server.faults.extend([(429, {"Retry-After": "0.5"}, BUSY)] * 4)
    judge = VLMJudge(server(judge_server), concurrency=4)
    start = time.monotonic()
    verdicts = list(judge.ask_all(make_question(3, f"make it {i}") for i in range(4)))
    assert [verdict.answer for verdict in verdicts] == [3] * 4
    assert judge_server.times[3] - start < 0.5  # all four came before the first was let in


def test_an_option_that_a_server_does_not_know_is_left_out_from_then_on(judge_server, make_question):
    judge_server.faults.extend(
        [
            (400, {}, {"error": {"message": "Unsupported.", "param": "max_completion_tokens"}}),
            (400, {}, {"error": {"message": "'response_format.type' must be 'text'"}}),
            (400, {}, {"error": {"message": "Only the default.", "param": "temperature"}}),
        ]
    )
    judge = VLMJudge(server(judge_server))
    assert [judge.ask(make_question(i)).answer for i in (2, 3)] == [2, 3]
    *_, last = judge_server.requests
    assert len(judge_server.requests) == 5 and set(last) == {"model", "messages", "max_tokens"}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_refused_is_missing_alone(judge_server, make_question, tmp_path, status):
    judge_server.faults.append((status, {}, {"error": {"message": "At most 4 pictures."}}))
    judge = VLMJudge(server(judge_server), tmp_path)
    verdict = judge.ask(make_question(3))
    assert verdict.answer is None and "At most 4 pictures." in verdict.reason and f"HTTP {status}" in verdict.reason
    assert judge.ask(make_question(3)).answer == 3


def completion(**choice: Any) -> tuple[int, dict[str, str], Any]:
    return 200, {"Content-Type": "application/json"}, {"choices": [choice], "usage": {"prompt_tokens": None}}


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (completion(), "no choice"),
        (completion(message=None), "no choice"),
        (completion(message={"content": [{"type": "text", "text": '{"score": 3}'}]}), "a list as its reply"),
        ((200, {"Content-Type": "application/json"}, '{"choices": [{'), "no JSON"),
        ((200, {"Content-Type": "application/json"}, ""), "no JSON"),
    ],
    ids=["empty", "no message", "parts", "cut", "nothing"],
)
def test_what_is_no_completion_is_a_missing_answer_that_is_not_kept(judge_server, make_question, tmp_path, sent, says):
    judge_server.faults.append(sent)
    judge = VLMJudge(server(judge_server), tmp_path)
    verdict = judge.ask(make_question(3))
    assert verdict.answer is None and says in verdict.reason
    assert judge.ask(make_question(3)).answer == 3


def test_a_server_that_counts_no_tokens_is_understood(judge_server, make_question, tmp_path):
    judge_server.faults.append(completion(message={"content": '{"score": 3}'}))
    verdict = VLMJudge(server(judge_server), tmp_path).ask(make_question())
    assert (verdict.answer, verdict.prompt_tokens, verdict.completion_tokens) == (3, 0, 0)


def test_half_a_letter_in_a_reply_is_replaced_and_kept(judge_server, make_question, tmp_path):
    judge_server.faults.append(completion(message={"content": '\ud800 {"score": 3}'}))
    judge = VLMJudge(server(judge_server), tmp_path)
    assert judge.ask(make_question()).replies == judge.ask(make_question()).replies == ('\ufffd {"score": 3}',)
    assert len(judge_server.requests) == 1


def test_a_server_that_refuses_everything_stops_the_job_in_one_sentence(judge_server, make_question):
    refusal = (400, {}, {"error": {"message": "At most 4 pictures."}})
    judge_server.faults.extend([*[refusal] * 49, None, *[refusal] * 49])
    judge = VLMJudge(server(judge_server))
    assert [judge.ask(make_question(3)).answer for _ in range(99)].count(3) == 1
    judge_server.faults.append(refusal)
    with pytest.raises(Unavailable, match=r"refused 50 questions in a row.*At most 4 pictures"):
        judge.ask(make_question(3))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ((401, {}, {"error": {"message": "Bad key."}}), "refuses the key .*Bad key.*set OPENAI_API_KEY"),
        ((404, {}, {"error": {"message": "Nothing here."}}), "has no model 'tiny-vlm'.*lack the /v1"),
        ((200, {"Content-Type": "text/html"}, "<html>hello</html>"), "no server of chat completions.*/v1"),
    ],
    ids=["key", "model", "web page"],
)
def test_what_is_wrong_with_every_question_is_one_sentence(judge_server, make_question, fault, says):
    judge_server.faults.append(fault)
    with pytest.raises(Unavailable, match=says) as error:
        VLMJudge(server(judge_server)).ask(make_question())
    assert len(judge_server.requests) == 1 and "\n" not in str(error.value)


def test_a_slow_server_is_left(judge_server, make_question):
    with pytest.raises(Unavailable, match=r"did not answer within 0.001 s; raise timeout_seconds"):
        VLMJudge(server(judge_server, timeout_seconds=0.001, max_retries=0)).ask(make_question())


def test_the_check_minds_a_server_that_is_not_there_and_no_other(judge_server, monkeypatch):
    server(judge_server).check()  # though it has no list of models
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match="cannot be reached"):
            Server(MODEL, url).check()


def test_address_model_and_key_come_from_the_environment(judge_server, make_question, monkeypatch):
    with pytest.raises(InputError, match="set INSVIE_JUDGE_MODEL"):
        Server()
    with pytest.raises(Unavailable, match="set OPENAI_API_KEY or INSVIE_JUDGE_API_KEY"):
        Server(MODEL).reply(make_question())
    monkeypatch.setenv("INSVIE_JUDGE_MODEL", MODEL)
    monkeypatch.setenv("INSVIE_JUDGE_BASE_URL", judge_server.url)
    Server().reply(make_question())
    monkeypatch.setenv("OPENAI_API_KEY", "general")
    Server().reply(make_question())
    monkeypatch.setenv("INSVIE_JUDGE_API_KEY", "judge")
    Server().reply(make_question())
    assert judge_server.keys == ["Bearer none", "Bearer general", "Bearer judge"]


def test_the_key_is_in_no_message_even_if_the_server_repeats_it(judge_server, make_question, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    judge_server.faults.append((401, {}, {"error": {"message": "Incorrect API key provided: sk-secret."}}))
    with pytest.raises(Unavailable, match=r"provided: \(the key\)") as refused:
        server(judge_server).reply(make_question())
    assert "sk-secret" not in str(refused.value)
    assert "sk-secret" not in json.dumps(server(judge_server).identity)
    hidden = Server(MODEL, "http://me:sk-secret@127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(Unavailable, match=r"//127\.0\.0\.1:9/v1") as refused:
        hidden.reply(make_question())
    assert "sk-secret" not in str(refused.value)


@pytest.mark.proof
def test_transformers_serve_is_killed_and_resumed(tiny_vlm, make_question, tmp_path, monkeypatch):
    """The server that comes with transformers, in a process of its own; about 13 s to start, twice."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    questions = [make_question(i % 5 + 1, f"make it white {i}") for i in range(6)]
    log = tmp_path / "serve.log"
    for run in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = "from transformers.cli.transformers import main; main()"
        options = [f"--port={port}", "--host=127.0.0.1", "--device=cpu", "--dtype=float32"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", command, "serve", str(tiny_vlm), *options],
                stdout=output,
                stderr=output,
                env=os.environ | {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"},
            )
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.5)
            model = Server(str(tiny_vlm), f"http://127.0.0.1:{port}/v1", max_retries=0)
            model.check()
            judge = VLMJudge(model, tmp_path / "cache", concurrency=1)
            answers = judge.ask_all(questions)
            if run == 0:
                assert [next(answers).answer for _ in range(3)] == [1, 2, 3]
                process.send_signal(signal.SIGKILL)
                process.wait()
                with pytest.raises(Unavailable, match="cannot be reached"):
                    list(answers)
                kept = len(list((tmp_path / "cache").rglob("*.json")))
                assert 3 <= kept < 6
            else:
                verdicts = list(answers)
                assert [verdict.answer for verdict in verdicts] == [1, 2, 3, 4, 5, 1]
                assert [verdict.cached for verdict in verdicts] == [True] * kept + [False] * (6 - kept)
                assert all(verdict.prompt_tokens > 50 for verdict in verdicts)
        finally:
            process.kill()
            process.wait()
