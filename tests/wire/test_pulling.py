"""The query of a long poll; unknown parameters are ignored."""

import pytest

from shared.wire.pelion.pulling import Pull, parse_pull


@pytest.mark.parametrize(
    ("query", "pull"),
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
def test_parse_pull(query: bytes, pull: Pull) -> None:
    assert parse_pull(query) == pull
