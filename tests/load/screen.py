"""What the person at the terminal sees while it runs: a bar that fills, or a few plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Screen:
    """All goes to stderr: stdout is for the table."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._from = 0

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    @contextlib.contextmanager
    def stage(self, what: str, *, total: int | None = None, start: int = 0) -> Iterator[None]:
        """While the block runs `show` and `step` move the bar towards `total`; None: nobody knows how far."""
        if not self._console.is_terminal:
            self.say(what)
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        self._from = start
        with Progress(*columns, console=self._console, transient=True, refresh_per_second=5) as self._bar:
            self._task = self._bar.add_task(what, total=total)
            try:
                yield
            finally:
                self._bar = None

    def show(self, count: int) -> None:
        """How many have come in all."""
        if self._bar is not None:
            self._bar.update(self._task, completed=count - self._from)

    def step(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
