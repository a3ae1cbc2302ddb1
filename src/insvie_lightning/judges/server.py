"""A vision-language model behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.judges.asked import Asked
from insvie_lightning.judges.reply import Reply, Unavailable

if TYPE_CHECKING:
    import openai

Detail = Literal["auto", "low", "high"]
_JPEG_QUALITY = 95
_CHECK_SECONDS = 10.0
_PATIENCE = 50
"""So many questions in a row may be refused one by one; then it is the server that is wrong, and no question."""


class Server:
    """A model of a server. The key comes from the environment only, so that no file of settings ever holds it.

    The client retries by itself, with growing pauses, what may pass: lost connections, 408, 409, 429 and 5xx; it waits
    as long as `Retry-After` says, up to a minute or two. A quota that is used up is not retried.

    Args:
        model: The model's name on the server; None is `INSVIE_JUDGE_MODEL` of the environment.
        base_url: The server's address, which mostly ends with `/v1`; None is `INSVIE_JUDGE_BASE_URL` or
            `OPENAI_BASE_URL` of the environment, else OpenAI's.
        detail: How closely the server looks at pictures, where it offers a choice; `auto` leaves it to the server.
        max_tokens: Of a reply. Models that think before they answer need some thousand.
        temperature: 0 gives the likeliest reply; None leaves it to the server.
        max_retries: Of one request.
        timeout_seconds: Of one request, until its whole reply is here.

    Raises:
        InputError: No model is named.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        detail: Detail = "auto",
        max_tokens: int = 256,
        temperature: float | None = 0.0,
        max_retries: int = 6,
        timeout_seconds: float = 120.0,
    ) -> None:
        name = model or os.environ.get("INSVIE_JUDGE_MODEL")
        if not name:
            raise InputError("no model of the judge's server is named: give `model`, or set INSVIE_JUDGE_MODEL")
        self.model = name
        self.base_url = base_url or os.environ.get("INSVIE_JUDGE_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
        self.detail = detail
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.max_retries = max_retries
        self.timeout_seconds = timeout_seconds
        self._refused: set[str] = set()
        self._faults = 0

    @property
    def identity(self) -> dict[str, Any]:
        """The model's name, and how it is asked."""
        return {"model": self.model, "detail": self.detail, "temperature": self.temperature}

    def check(self) -> None:
        """Say at once if the server cannot be reached or refuses the key; other complaints are left to the questions.

        Raises:
            Unavailable: It does not.
        """
        import openai

        client = self._client.with_options(max_retries=1, timeout=_CHECK_SECONDS)
        try:
            client.models.list()
        except (openai.APIConnectionError, openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise Unavailable(self._sentence(error)) from error
        except openai.APIError:
            pass  # some servers have no list of models

    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Ask the server once; see `judge.VisionLanguageModel`."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": question.system},
            {"role": "user", "content": [self._part(part) for part in question.content]},
        ]
        for text, complaint in earlier:
            messages.append({"role": "assistant", "content": text or "(nothing)"})
            messages.append({"role": "user", "content": complaint})
        reply = self._ask(messages, question.schema)
        self._faults = self._faults + 1 if reply.fault else 0
        if self._faults >= _PATIENCE:
            raise Unavailable(
                f"the judge's server {self._address} has refused {self._faults} questions in a row, the last one so: "
                f"{reply.fault}; a rerun asks only for what the cache lacks"
            )
        return reply

    def _ask(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Reply:
        import openai
        from openai.types.chat import ChatCompletion

        try:
            completion = self._create(messages, schema)
        except openai.APIError as error:
            status = getattr(error, "status_code", None)
            if status in (400, 413, 422, 500):
                return Reply("", fault=f"the server refused the question (HTTP {status}): {_said(error)}")
            raise Unavailable(self._sentence(error)) from error
        except json.JSONDecodeError:
            return Reply("", fault="the server sent a broken reply, which is no JSON")
        if not isinstance(completion, ChatCompletion):
            raise Unavailable(f"{self._address} is no server of chat completions; does its base_url end with /v1?")
        return _read(completion)

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        key = next(iter(_keys()), None)
        if not key and not self.base_url:
            raise Unavailable(
                "the judge's server needs a key: set OPENAI_API_KEY or INSVIE_JUDGE_API_KEY, or give the base_url of "
                "a server that needs none"
            )
        return openai.OpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            max_retries=self.max_retries,
            timeout=self.timeout_seconds,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [_no_retry_without_quota]}),
        )

    @property
    def _address(self) -> str:
        return re.sub("//[^/]*@", "//", self.base_url) if self.base_url else "OpenAI"  # without user and password

    def _create(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Any:
        """Send a request, without those options that this server does not know."""
        import openai

        create: Any = self._client.chat.completions.create
        while True:
            options = dict(self._options(schema))
            try:
                return create(model=self.model, messages=messages, **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = [name for name in options if name == error.param or name in str(error)]
                if not refused:
                    raise
                self._refused.update(refused)

    def _options(self, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        limit = "max_tokens" if "max_completion_tokens" in self._refused else "max_completion_tokens"
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
        for name, value in ((limit, self.max_tokens), ("temperature", self.temperature), ("response_format", form)):
            if value is not None and name not in self._refused:
                yield name, value

    def _part(self, part: str | np.ndarray) -> dict[str, Any]:
        """A part of a message: a text, or a frame 3 H W as a JPEG data URL."""
        if isinstance(part, str):
            return {"type": "text", "text": part}
        file = io.BytesIO()
        Image.fromarray(part.transpose(1, 2, 0)).save(file, "jpeg", quality=_JPEG_QUALITY, subsampling=0)
        image = {"url": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"}
        return {"type": "image_url", "image_url": image | ({} if self.detail == "auto" else {"detail": self.detail})}

    def _sentence(self, error: openai.APIError) -> str:
        """What stops every question, in one sentence."""
        import openai

        match error:
            case openai.APITimeoutError():
                what = f"did not answer within {self.timeout_seconds:g} s; raise timeout_seconds or ask fewer at a time"
            case openai.APIConnectionError():
                what = f"cannot be reached ({_said(error)}): start it, or correct base_url"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                what = f"refuses the key ({_said(error)}); set OPENAI_API_KEY or INSVIE_JUDGE_API_KEY"
            case openai.NotFoundError():
                what = f"has no model {self.model!r} ({_said(error)}); or does its base_url lack the /v1?"
            case openai.RateLimitError() if error.code == "insufficient_quota":
                what = "says that the account's quota is used up (insufficient_quota); raise it"
            case openai.RateLimitError():
                what = f"still says after {self.max_retries} retries that requests come too fast; lower the concurrency"
            case _:
                what = f"failed after {self.max_retries} retries ({_said(error)})"
        return f"the judge's server {self._address} {what}; a rerun asks only for what the cache lacks"


def _read(completion: Any) -> Reply:
    """What a server said; the client does not check that it is what a completion holds."""
    try:
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or choice.message.refusal or ""
    except (AttributeError, IndexError, KeyError, TypeError):
        return Reply("", fault="the server sent no choice")
    if not isinstance(text, str):
        return Reply("", fault=f"the server sent a {type(text).__name__} as its reply, and no text")
    counts = (getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens"))
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else 0 for count in counts)
    return Reply(text, prompt_tokens, completion_tokens, cut=choice.finish_reason == "length")


def _keys() -> list[str]:
    return [key for name in ("INSVIE_JUDGE_API_KEY", "OPENAI_API_KEY") if (key := os.environ.get(name))]


def _said(error: Exception) -> str:
    """What a server says; some repeat the key that they refuse, which must not get into logs and caches."""
    said = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    for key in _keys():
        said = said.replace(key, "(the key)")
    return said


def _no_retry_without_quota(response: Any) -> None:
    """Tell the client, by the header that it obeys, that waiting does not fill an account."""
    if response.status_code == 429 and b"insufficient_quota" in response.read():
        response.headers["x-should-retry"] = "false"
