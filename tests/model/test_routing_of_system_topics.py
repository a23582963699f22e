"""Our own topics reach nothing that did not name them: no wildcard, no field pattern, no socket's pattern."""

import orjson
import pytest

from shared.model.bindings import DataFields, Pattern, Source, Topic
from shared.model.events import Event
from shared.model.routing_table import RoutingTable

DISABLED = Event("e-1", "system.webhook.disabled", b'{"id": 17}')


def table(pattern: Pattern) -> RoutingTable:
    found = RoutingTable(orjson.loads)
    found.add_key("k", bindings_version="1")
    found.add_channel("k", "g")
    found.bind("k", Source.TOPICS, (pattern,))
    found.listen("s", (pattern,))
    return found


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (Topic("system.webhook.disabled"), True),
        (Topic("system.#"), True),
        (Topic("#"), False),
        (Topic("*.webhook.disabled"), False),
        (DataFields(()), False),
        (DataFields((("id", ("17",)),)), False),
    ],
)
def test_only_a_pattern_that_begins_with_the_word_system_matches(pattern: Pattern, wanted: bool) -> None:
    routed = table(pattern)
    assert routed.channels_for(DISABLED) == ["k"] * wanted
    assert routed.sessions_for(DISABLED, {"id": 17}) == ({"s"} if wanted else set())
