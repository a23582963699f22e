"""Frames are the data and nothing else."""

import orjson
import pytest

from shared.model.errors import Invalid, TooLarge
from shared.wire.cognism.frames import MAX_PUSHED_BYTES, first_frame, parse_pushed


def test_first_frame_has_the_session_id() -> None:
    assert orjson.loads(first_frame("0f" * 16)) == {"session": "0f" * 16}


@pytest.mark.parametrize("body", [b'{ "a" : 1.0 }', b"[]", b'""', b"7", b"null", b' {"a":\n1} '])
def test_pushed_data_is_unchanged(body: bytes) -> None:
    assert parse_pushed(body) is body


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"a=b", b'"\xff"', b"NaN", b"{}{}", b"[" * 2000])
def test_pushed_data_must_be_json(body: bytes) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        parse_pushed(body)


def test_limit_of_pushed_data() -> None:
    longest = orjson.dumps("x" * (MAX_PUSHED_BYTES - 2))

    assert parse_pushed(longest) == longest
    with pytest.raises(TooLarge, match="64 KiB"):
        parse_pushed(orjson.dumps("x" * (MAX_PUSHED_BYTES - 1)))
