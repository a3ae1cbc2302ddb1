"""Ask a vision-language model about edits: from the cache where it has answered before, again where it mumbled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol

from insvie_lightning.errors import InputError
from insvie_lightning.judges.asked import Answer, Asked
from insvie_lightning.judges.cache import AnswerCache, describe
from insvie_lightning.judges.reply import Reply


class VisionLanguageModel(Protocol):
    """What a judge needs of a model: `server.Server` and `local.LocalModel` are two."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its name as `model`, and what else changes its answers."""
        ...

    def check(self) -> None:
        """Say at once what every question would fail by.

        Raises:
            InputError: The model cannot be reached or loaded.
        """
        ...

    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Reply to a question; `earlier` are replies that could not be read, each with what was said to it.

        Raises:
            Unavailable: Nobody answers.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Answer]):
    """What became of a question.

    Attributes:
        answer: The score, the number of the best candidate, or texts by key; None is missing.
        reason: Why it is missing; else empty.
        replies: Raw replies in their order; all but the last could not be read.
        prompt_tokens: Of all requests together.
        completion_tokens: Of all replies together.
        usd: What they cost when they were made.
        cached: The verdict was read from the cache, and costs nothing now.
    """

    answer: Answer | None
    reason: str = ""
    replies: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    cached: bool = False

    @property
    def missing(self) -> str:
        """Why there is no answer, without a word of the replies, so that like reasons count together; else empty."""
        return "its replies could not be read" if self.reason and self.replies else self.reason

    @property
    def facts(self) -> dict[str, Any]:
        """What goes into the lineage of what was made by it: neither costs, nor whether it was in the cache."""
        return {"answer": self.answer, "reason": self.reason, "replies": list(self.replies)}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a judge has used up; tokens and `usd` of new requests only, `saved_usd` what the cached ones had cost."""

    questions: int = 0
    cached: int = 0
    missing: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    saved_usd: float = 0.0

    def plus(self, verdict: Verdict[Any]) -> Spent:
        """The sum with one more verdict."""
        asked = replace(self, questions=self.questions + 1, missing=self.missing + (verdict.answer is None))
        if verdict.cached:
            return replace(asked, cached=self.cached + 1, saved_usd=self.saved_usd + verdict.usd)
        return replace(
            asked,
            requests=self.requests + len(verdict.replies),
            prompt_tokens=self.prompt_tokens + verdict.prompt_tokens,
            completion_tokens=self.completion_tokens + verdict.completion_tokens,
            usd=self.usd + verdict.usd,
        )

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.questions} questions, {self.cached} answered from the cache, {self.missing} without an answer; "
            f"{self.requests} replies, {self.prompt_tokens} + {self.completion_tokens} tokens, ${self.usd:.2f}"
        )


class VLMJudge:
    """A vision-language model as a judge of edits.

    Args:
        model: Who answers.
        cache: Folder that keeps every answer with its raw replies; None keeps nothing.
        reasks: How often a reply that cannot be read is asked for again, before the answer is missing.
        concurrency: Questions that are asked at the same time by `ask_all`.
        usd_per_million_input: Price of a million prompt tokens, in dollars.
        usd_per_million_output: Price of a million reply tokens, in dollars.
        retry_missing: Ask again what has only a missing answer in the cache.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        cache: Path | None = None,
        reasks: int = 2,
        concurrency: int = 4,
        usd_per_million_input: float = 0.0,
        usd_per_million_output: float = 0.0,
        retry_missing: bool = False,
    ) -> None:
        if reasks < 0 or concurrency < 1:
            raise InputError(f"reasks is {reasks}, concurrency {concurrency}; they are at least 0 and 1")
        self.model = model
        self.cache = None if cache is None else AnswerCache(cache)
        self.reasks = reasks
        self.concurrency = concurrency
        self.usd_per_token = (usd_per_million_input / 1e6, usd_per_million_output / 1e6)
        self.retry_missing = retry_missing
        self.spent = Spent()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> VLMJudge:
        """Itself: modules copy what they were built with, and a judge, its lock and its costs are one."""
        return self

    def ask(self, question: Asked[Answer]) -> Verdict[Answer]:
        """Answer one question; safe in several threads.

        Raises:
            Unavailable: Nobody answers; what has been answered is in the cache.
        """
        asked = self._describe(question)
        verdict = self._recall(asked)
        if verdict is None:
            verdict, cut = self._converse(question)
            if self.cache is not None and verdict.replies and not cut:  # else no larger max_tokens would help
                self.cache.write(asked, asdict(verdict))
        with self._lock:
            self.spent = self.spent.plus(verdict)
        return verdict

    def ask_all(self, questions: Iterable[Asked[Answer]]) -> Iterator[Verdict[Answer]]:
        """Answer questions in their order, `concurrency` at a time; they are drawn as they are needed.

        Raises:
            Unavailable: As `ask`; questions that wait are given up.
        """
        waiting: deque[Future[Verdict[Answer]]] = deque()
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                for question in questions:
                    waiting.append(pool.submit(self.ask, question))
                    if len(waiting) >= 2 * self.concurrency:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def recall(self, question: Asked[Answer]) -> Verdict[Answer] | None:
        """The verdict in the cache; None where there is none, or where a missing one is to be asked for again."""
        return self._recall(self._describe(question))

    def _describe(self, question: Asked[Any]) -> dict[str, Any]:
        return {} if self.cache is None else describe(self.model.identity, question)

    def _recall(self, asked: dict[str, Any]) -> Verdict[Any] | None:
        answer = None if self.cache is None else self.cache.read(asked)
        if answer is None:
            return None
        try:
            verdict = Verdict(**answer | {"replies": tuple(answer["replies"]), "cached": True})
        except (KeyError, TypeError):  # another version's
            return None
        return None if self.retry_missing and verdict.answer is None else verdict

    def _converse(self, question: Asked[Answer]) -> tuple[Verdict[Answer], bool]:
        """Ask until a reply can be read, at most `reasks` times more; also, whether it is missing as they were cut."""
        replies: list[Reply] = []
        earlier: tuple[tuple[str, str], ...] = ()
        answer: Answer | None = None
        reason = ""
        while answer is None and len(replies) <= self.reasks:
            reply = self.model.reply(question, earlier)
            if reply.fault:
                reason = reply.fault
                break
            replies.append(reply)
            try:
                answer, reason = question.read(reply.text), ""
            except InputError as error:
                reason = f"{error}{'; it was cut short, so raise max_tokens' if reply.cut else ''}"
                earlier = (*earlier, (reply.text, f"That could not be read. {question.form}"))
        prompt_tokens = sum(reply.prompt_tokens for reply in replies)
        completion_tokens = sum(reply.completion_tokens for reply in replies)
        usd = prompt_tokens * self.usd_per_token[0] + completion_tokens * self.usd_per_token[1]
        texts = tuple(reply.text for reply in replies)
        cut = answer is None and any(reply.cut for reply in replies)
        return Verdict(answer, reason, texts, prompt_tokens, completion_tokens, usd), cut
