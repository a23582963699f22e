"""Progress on stderr: a bar in a terminal, otherwise a few lines."""

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Screen:
    """Writes to stderr: stdout is for the table."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._from = 0

    def print_line(self, line: str) -> None:
        self._console.print(line, markup=False)

    @contextlib.contextmanager
    def stage(self, what: str, *, total: int | None = None, start: int = 0) -> Iterator[None]:
        """Shows a bar during the block; `show` and `step` move it towards `total` (None: unknown)."""
        if not self._console.is_terminal:
            self.print_line(what)
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
        """Sets the bar to a count of received notifications."""
        if self._bar is not None:
            self._bar.update(self._task, completed=count - self._from)

    def step(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
