"""How much work a call is: a figure that does not depend on the machine."""

import pickle
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from shared.model.matching import Index

T = TypeVar("T")


def count_lines(act: Callable[[], T]) -> tuple[T, int]:
    """The result of the call, and how many lines of Python it executed."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return act(), lines
    finally:
        sys.settrace(before)


def state_of(index: Index) -> bytes:
    """All that an index holds, but for the number of its state."""
    return pickle.dumps({**vars(index), "_edition": None})
