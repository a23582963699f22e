"""The ids of events of a stream connection: where a reader is in each of its topics.

    id       := base64url of: version, hash of the sorted topics, a place for each of them in that order
    place    := 255 (not begun) | length of the epoch, epoch, ms and number of the offset as varints

A client names one when it comes back. It is no authority, and may be anything: what is not exactly an id of
these topics means nothing.
"""

import base64
import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import islice

from shared.model.streams import Mark

LONGEST_ID = 2048
_VERSION = b"\x01"
_HASH_BYTES = 8
_NOT_BEGUN = 255
_EPOCH = re.compile(r"[0-9A-Za-z_-]{0,32}")
_LARGEST = 2**64
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Position:
    """Where one reader is in its topics."""

    __slots__ = ("_at", "_places", "_prefix")

    def __init__(self, topics: Sequence[str]) -> None:
        ordered = sorted(topics)
        self._at = {topic: number for number, topic in enumerate(ordered)}
        self._prefix = _prefix(ordered)
        self._places = [bytes((_NOT_BEGUN,))] * len(ordered)

    def move(self, topic: str, epoch: str, offset: str) -> None:
        """The reader has everything of the topic up to this offset."""
        self._places[self._at[topic]] = _place(epoch, offset)

    def id(self) -> bytes:
        return _text(self._prefix + b"".join(self._places))


def id_of(topic: str, epoch: str, offset: str) -> bytes:
    """The id of a reader of this topic alone."""
    ms, _, number = offset.partition("-")
    return id_at(beginning(topic, epoch), int(ms), int(number))


def id_at(begin: bytes, ms: int, number: int) -> bytes:
    """The same for ms and number of the offset; `begin` is that of its topic."""
    return _text(begin + _varint_of_ms(ms) + _varint(number))


def marks_in(given: str, topics: Sequence[str]) -> Mapping[str, Mark] | None:
    """The marks in an id of exactly these topics, but for those not begun; None if it is no such id."""
    if len(given) > LONGEST_ID or not given.isascii():
        return None
    try:
        content = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
    except ValueError:
        return None
    ordered = sorted(topics)
    prefix = _prefix(ordered)
    if not content.startswith(prefix):
        return None
    position, marks = Position(topics), dict[str, Mark]()
    octets = islice(content, len(prefix), None)
    for topic in ordered:
        try:
            mark = _mark(octets)
        except (StopIteration, ValueError):
            return None
        if mark is not None:
            marks[topic] = mark
            position.move(topic, mark.epoch, mark.offset)
    # Each id has one spelling.
    return marks if position.id() == given.encode() else None


def _prefix(ordered: Sequence[str]) -> bytes:
    # A topic has no line break.
    return _VERSION + sha256("\n".join(ordered).encode()).digest()[:_HASH_BYTES]


# Of a topic nearly all ids begin alike.
@lru_cache(maxsize=4096)
def beginning(topic: str, epoch: str) -> bytes:
    return _prefix([topic]) + bytes((len(epoch),)) + epoch.encode()


def _text(content: bytes) -> bytes:
    # As `base64.urlsafe_b64encode`, in half of its time.
    return b2a_base64(content, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _place(epoch: str, offset: str) -> bytes:
    ms, _, number = offset.partition("-")
    return bytes((len(epoch),)) + epoch.encode() + _varint(int(ms)) + _varint(int(number))


def _varint(number: int) -> bytes:
    if number <= 0x7F:
        return bytes((number,))
    if number <= 0x3FFF:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80)) + _upper_varint(number >> 14)


# Of many topics events come in the same ms.
@lru_cache(maxsize=64)
def _varint_of_ms(ms: int) -> bytes:
    return _varint(ms)


# Of a time it is the same for 16 seconds.
@lru_cache(maxsize=1024)
def _upper_varint(number: int) -> bytes:
    return _varint(number)


def _mark(octets: Iterator[int]) -> Mark | None:
    """Raises StopIteration, ValueError."""
    length = next(octets)
    if length == _NOT_BEGUN:
        return None
    epoch = bytes(islice(octets, length)).decode("ascii")
    if len(epoch) != length or not _EPOCH.fullmatch(epoch):
        raise ValueError
    return Mark(epoch, f"{_number(octets)}-{_number(octets)}")


def _number(octets: Iterator[int]) -> int:
    number, shift = 0, 0
    while True:
        octet = next(octets)
        number |= (octet & 0x7F) << shift
        shift += 7
        if number >= _LARGEST:
            raise ValueError
        if octet <= 0x7F:
            return number
        if shift > 63:
            raise ValueError
