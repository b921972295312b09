"""Progress on a terminal: what is being done, how much of it, how fast, and how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with what is being done, units done and in all."""


@contextmanager
def progress_bar() -> Generator[Progress | None, None, None]:
    """A progress bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.1f}/s" if speed and speed >= 1 else f"{60 * speed:,.1f}/min" if speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bar(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        doing = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal task, doing
            stage = what.partition(":")[0]
            if total != bar.tasks[-1].total or (stage != doing and done <= 1):
                bar.remove_task(task)  # another stage: its rate has nothing to do with the last one's
                task = bar.add_task(what, total=total)
            doing = stage
            bar.update(task, description=what, completed=done)

        yield show
