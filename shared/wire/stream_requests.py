"""The query of `GET /v1/stream`, and the id that its client comes back with (docs/protocols/sse.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from shared.model import topics
from shared.model.errors import Invalid
from shared.model.streams import BEGINNING, NEVER_RETAINED, Mark, Start
from shared.wire.stream_ids import marks_in

MOST_TOPICS = 16
# No stream has this epoch: what is behind such a mark may be everything.
_UNKNOWN = Mark("?", BEGINNING)
_STARTS = {start.value: start for start in Start}


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Where a client begins to read each of its topics."""

    since: Mapping[str, Mark | Start]

    @property
    def topics(self) -> list[str]:
        return list(self.since)


def ticket_in(query: bytes) -> str:
    """The ticket in a query, which stands for its topics; '' without one."""
    return parse_qs(query.decode(errors="replace")).get("ticket", [""])[-1]


def stream_request(query: bytes, *, last_event_id: str, topics: Sequence[str] | None = None) -> StreamRequest:
    """Ignores unknown parameters. `last_event_id` is that of the header, '' without one.

    `topics` are those of a ticket, and the query then names none.

    An id that is none of these topics is no error: browsers give up after one. Raises Invalid.
    """
    fields = parse_qs(query.decode(errors="replace"), keep_blank_values=True)
    wanted = fields.get("topic", [])
    if topics is None:
        check_topics(wanted, "topic")
    elif wanted:
        raise Invalid("must not be given beside a ticket, which has its own", field="topic")
    else:
        wanted = list(topics)
    begin = fields.get("from", [Start.LATEST.value])[-1]
    if begin not in _STARTS:
        raise Invalid(f"must be {' or '.join(sorted(_STARTS))}", field="from")
    start = _STARTS[begin]
    # The header is newer: a browser repeats the URL that it began with.
    given = last_event_id or fields.get("last_event_id", [""])[-1]
    if not given:
        return StreamRequest(dict.fromkeys(wanted, start))
    marks = marks_in(given, wanted)
    if marks is None:
        return StreamRequest(dict.fromkeys(wanted, _UNKNOWN))
    return StreamRequest({topic: marks.get(topic, start) for topic in wanted})


def check_topics(wanted: Sequence[str], field: str) -> None:
    """Raises Invalid."""
    if not 1 <= len(wanted) <= MOST_TOPICS:
        raise Invalid(f"must be given 1 to {MOST_TOPICS} times", field=field)
    for topic in wanted:
        if (wrong := exact_topic_error(topic)) is not None:
            raise Invalid(wrong, field=field)
    if len(set(wanted)) < len(wanted):
        raise Invalid("names a topic twice", field=field)


def no_stream(topic: str) -> str:
    """Why a topic cannot be read."""
    return f"the topic {topic} has no stream: no rule of PUT /v1/streams names it"


def exact_topic_error(topic: str) -> str | None:
    """The rule that a topic to be read breaks, to be put after its name; None for a valid one."""
    if (wrong := topics.topic_error(topic)) is not None:
        return wrong
    words = topics.words(topic)
    if topics.ONE in words or topics.ANY in words:
        return "must be exact: streams are read by topic, without * and #"
    if words[0] in NEVER_RETAINED:
        return f"begins with the word {words[0]}: such topics have no stream"
    return None
