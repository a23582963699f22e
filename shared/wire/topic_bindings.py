"""The body of PUT /v1/bindings: topic patterns of an API key (docs/protocols/events.md, section 4)."""

from typing import Annotated

import msgspec
import orjson
from msgspec import Meta

from shared.model import topics
from shared.model.bindings import Topic
from shared.model.errors import Invalid
from shared.wire.models import parse

Topics = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH, examples=["orders.*.created"])]],
    Meta(max_length=1024, description="Words between dots; * is one word, # any number of them."),
]
_TOPICS: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(Topics)


def parse_topics(body: bytes) -> list[str]:
    """The patterns, in the order given. Raises Invalid, naming the field."""
    posted = parse(_TOPICS, body)
    for index, pattern in enumerate(posted):
        wrong = topics.pattern_error(pattern)
        if wrong is not None:
            raise Invalid(wrong, field=f"[{index}]")
    return posted


def stored_topics(stored: bytes) -> tuple[Topic, ...]:
    """The bindings, from their stored form."""
    return tuple(Topic(pattern) for pattern in orjson.loads(stored))
