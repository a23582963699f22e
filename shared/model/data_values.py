"""The values in an event's data, as patterns compare them."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

# Only so many values of a list are compared: each of them is tried with every wildcard.
MAX_TEXTS = 1_000
# JSON's numbers. float() alone would also take "1_000", " 7" and "infinity".
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,4})?")


class DataValues:
    """Looks up dotted paths in the parsed data of one event, each once."""

    __slots__ = ("has", "numbers", "texts")

    def __init__(self, value: Any) -> None:
        self.texts = cache(lambda path: texts_at(value, path))
        self.numbers = cache(lambda path: numbers_in(self.texts(path)))
        self.has = cache(lambda path: bool(values_at(value, path)))


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the text matches a pattern in which each `*` is any run of characters.

    Linear in the text for any number of stars: the first occurrence of a part leaves the most text to the
    following parts, so there is no backtracking.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return text == pattern
    last = parts.pop()
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in parts:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def values_at(value: Any, path: str) -> list[Any]:
    """What parsed data has at a dotted path; of a list within the path, at any of its elements."""
    found = [value]
    for word in path.split("."):
        found = [item[word] for item in flatten(found) if isinstance(item, dict) and word in item]
    return found


def texts_at(value: Any, path: str) -> frozenset[str]:
    """The texts of parsed data at a dotted path."""
    return texts_in(values_at(value, path))


def numbers_in(texts: Iterable[str]) -> list[float]:
    """The texts that are numbers."""
    return [float(text) for text in texts if _NUMBER.fullmatch(text)]


def texts_in(values: Iterable[Any]) -> frozenset[str]:
    """The texts of these values and of the elements of lists among them."""
    texts = (text_of(value) for value in flatten(values))
    return frozenset(islice((text for text in texts if text is not None), MAX_TEXTS))


def flatten(values: Iterable[Any]) -> Iterator[Any]:
    """The values, with each list replaced by its elements, at any depth."""
    open_lists = [iter(values)]
    while open_lists:
        for value in open_lists[-1]:
            if isinstance(value, list):
                open_lists.append(iter(value))
                break
            yield value
        else:
            open_lists.pop()


def text_of(value: Any) -> str | None:
    """The text that a value is compared as; None for null, lists and objects."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None
