"""The body of PUT /v1/bindings: topic patterns of an API key (docs/protocols/events.md, section 4)."""

from typing import Annotated

import orjson
from msgspec import Meta

from shared.model import topics
from shared.model.bindings import Topic
from shared.model.errors import Invalid

Topics = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=topics.MAX_LENGTH, examples=["orders.*.created"])]],
    Meta(max_length=1024, description="Words between dots; * is one word, # any number of them."),
]


def check_topics(posted: Topics) -> None:
    """Raises Invalid, naming the field."""
    for index, pattern in enumerate(posted):
        wrong = topics.pattern_error(pattern)
        if wrong is not None:
            raise Invalid(wrong, field=f"[{index}]")


def stored_topics(stored: bytes) -> tuple[Topic, ...]:
    """The bindings, from their stored form."""
    return tuple(Topic(pattern) for pattern in orjson.loads(stored))
