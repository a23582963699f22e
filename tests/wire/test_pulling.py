"""What the query of a long poll says; nobody is refused for what it says beside."""

import pytest

from shared.wire.pelion.pulling import Pull, asked_for


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"", Pull()),
        (b"noWait=true", Pull(waits=False)),
        (b"noWait=True&limit=3", Pull(waits=False)),
        (b"noWait=false", Pull()),
        (b"noWait", Pull()),
        (b"after=", Pull(after="")),
        (b"after", Pull(after="")),
        (b"after=abc&noWait=true", Pull(waits=False, after="abc")),
        (b"after=a&after=b", Pull(after="b")),
        (b"%ff=%zz&&=&\xff\x00", Pull()),
    ],
)
def test_what_is_asked_for(query: bytes, asked: Pull) -> None:
    assert asked_for(query) == asked
