"""A progress bar on stderr with rate and time left."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, shown: bool = True, count: int | None = None) -> Iterator[Item]:
    """Yield the items, `count` of them if they cannot tell, while a bar labelled `what` follows, if it is shown."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        yield from bar.track(items, total=count)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return TaskProgressColumn.render_speed(task.finished_speed or task.speed)
