"""A real server of a real, tiny vision-language model, which can be told to misbehave."""

import base64
import copy
import io
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from insvie_lightning.judges import QUALITY, Prompt, Question

TINY_VLM = Path(__file__).parent / "tiny_vlm"
MODEL = "tiny-vlm"


def clip(*answers: int) -> np.ndarray:
    """Frames of which the tiny model thinks so: black, and a quarter more of white for each point above 1."""
    frames = np.full((len(answers), 3, 56, 56), 30, np.uint8)
    for frame, answer in zip(frames, answers, strict=True):
        for quarter in range(answer - 1):
            row, column = 28 * (quarter // 2), 28 * (quarter % 2)
            frame[:, row : row + 28, column : column + 28] = 225
    return frames


def question(answer: int = 3, instruction: str = "make it white", prompt: Prompt = QUALITY) -> Question:
    return Question(prompt, instruction, clip(1, 2), clip(5, answer))


@pytest.fixture(scope="session")
def make_question() -> Callable[..., Question]:
    """Make a question that the tiny model answers by `answer`."""
    return question


@pytest.fixture(scope="session")
def tiny_vlm() -> Path:
    return TINY_VLM


@pytest.fixture(scope="session")
def generate() -> Callable[[list[dict[str, Any]], int], tuple[str, int, int]]:
    """What the tiny model says to the messages of a request: the text, and the tokens of both."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(TINY_VLM)
    model = AutoModelForImageTextToText.from_pretrained(TINY_VLM).eval()
    lock = threading.Lock()

    def image(url: str) -> Image.Image:
        scheme, _, data = url.partition(",")
        assert scheme == "data:image/jpeg;base64"
        return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))

    @torch.inference_mode()
    def run(messages: list[dict[str, Any]], max_tokens: int) -> tuple[str, int, int]:
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        images = [image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=[text], images=images, return_tensors="pt")
        with lock:
            made = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, inputs.input_ids.shape[1] :]
        return processor.tokenizer.decode(made, skip_special_tokens=True), inputs.input_ids.shape[1], len(made)

    return run


class JudgeServer:
    """Chat completions of the tiny model, over HTTP on this machine.

    Attributes:
        requests: The bodies of all requests, in their order.
        times: When they came, in seconds.
        keys: Their `Authorization` headers.
        faults: What to do with the next requests instead: a text is sent as the reply; (status, headers, body) as it
            is; None is no fault.
        dies_at: The number of the request at which the server is gone, from 0.
    """

    def __init__(self, generate: Callable[[list[dict[str, Any]], int], tuple[str, int, int]]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        self.faults: deque[str | tuple[int, dict[str, str], Any] | None] = deque()
        self.dies_at: int | None = None
        self.dead = False
        self._generate = generate
        self._lock = threading.Lock()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = judge.answer(self.path, body, self.headers.get("authorization"))
                if answer is None:
                    self.close_connection = True
                else:
                    self.send(*answer)

            def do_GET(self) -> None:
                if judge.dead:
                    self.close_connection = True
                else:
                    self.send(500, {}, {"error": {"message": "no list of models here"}})

            def send(self, status: int, headers: dict[str, str], body: Any) -> None:
                content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                if "Content-Type" not in headers:
                    self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, str], Any] | None:
        with self._lock:
            number = len(self.requests)
            if not self.dead:
                self.requests.append(copy.deepcopy(body))  # transformers 5.17 changes the messages it renders
                self.times.append(time.monotonic())
                self.keys.append(key)
            if number == self.dies_at:
                self.dead = True
                threading.Thread(target=self.close).start()
            if self.dead:
                return None
            fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, tuple):
            return fault
        if path != "/v1/chat/completions":
            return 404, {}, {"error": {"message": f"nothing at {path}"}}
        if body["model"] != MODEL:
            return 404, {}, {"error": {"message": f"no model {body['model']}", "code": "model_not_found"}}
        limit = body.get("max_completion_tokens") or body["max_tokens"]
        text, prompt_tokens, completion_tokens = self._generate(body["messages"], limit)
        message = {"role": "assistant", "content": text if fault is None else fault}
        reason = "length" if completion_tokens >= limit else "stop"
        return (
            200,
            {},
            {
                "id": str(number),
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            },
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def start_server(generate: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], JudgeServer]]:
    """Start a server; all are stopped after the test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "INSVIE_JUDGE_API_KEY", "INSVIE_JUDGE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    servers: list[JudgeServer] = []

    def start() -> JudgeServer:
        servers.append(JudgeServer(generate))
        return servers[-1]

    yield start
    for server in servers:
        if not server.dead:
            server.close()


@pytest.fixture
def judge_server(start_server: Callable[[], JudgeServer]) -> JudgeServer:
    return start_server()
