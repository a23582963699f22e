"""The body of PUT /v1/bindings: plain topics that an API key wants (docs/protocols/events.md, section 4)."""

import orjson

from shared.model.bindings import Topic
from shared.model.errors import Invalid
from shared.model.topics import pattern_error

MAX_TOPICS = 1024


def parse_topics(body: bytes) -> list[str]:
    """The posted array, checked and otherwise as it came. Raises Invalid naming the field."""
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(posted, list):
        raise Invalid("the body must be an array of topics")
    if len(posted) > MAX_TOPICS:
        raise Invalid(f"{len(posted)} topics; at most {MAX_TOPICS} are kept")
    for index, topic in enumerate(posted):
        wrong = pattern_error(topic if isinstance(topic, str) else "")
        if wrong is not None:
            raise Invalid(wrong, field=f"[{index}]")
    return posted


def stored_topics(stored: bytes) -> tuple[Topic, ...]:
    """The patterns of topics as they were stored."""
    return tuple(Topic(topic) for topic in orjson.loads(stored))
