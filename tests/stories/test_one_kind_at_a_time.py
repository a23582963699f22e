"""An API key has a channel of one kind at a time: another is refused until the first is deleted."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.harness.api import Answer, Api, ApiKey
from tests.harness.callbacks import Hook
from tests.harness.events import reading
from tests.stories.test_errors import assert_error


@dataclass(frozen=True)
class Kind:
    """How a kind of channel is made, seen and ended, and what each answers.

    `absent` is the answer to ending what is not there, `shown` how /v1/channels names the kind.
    """

    shown: str
    make: Callable[[Api, ApiKey, Hook], Awaitable[Answer]]
    made: int
    path: str
    ended: int
    absent: int

    async def end(self, api: Api, key: ApiKey) -> Answer:
        return await api.call("DELETE", self.path, key=key)

    def __str__(self) -> str:
        return self.shown


KINDS = [
    Kind(
        shown="websocket",
        make=lambda api, key, _: api.call("PUT", "/v2/notification/websocket", key=key),
        made=201,
        path="/v2/notification/websocket",
        ended=204,
        absent=404,
    ),
    Kind(
        shown="webhook",
        make=lambda api, key, hook: api.put_callback(key, hook.url),
        made=204,
        path="/v2/notification/callback",
        ended=204,
        absent=404,
    ),
]


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(KINDS, 2)), ids=str)
async def test_another_kind_waits_until_the_first_is_deleted(
    api: Api, other_api: Api, key: ApiKey, hook: Hook, first: Kind, second: Kind
) -> None:
    assert (await first.make(api, key, hook)).status == first.made
    await api.publish(key, reading(1, to=key.id))
    called = len(hook.called)

    refused = await second.make(other_api, key, hook)

    assert_error(refused, 400, "bad_request")
    assert first.shown in refused.json["message"]
    assert (await second.end(api, key)).status == second.absent
    kept = (await api.call("GET", f"/v1/channels/{key.id}", key=key)).json
    assert kept["kind"] == first.shown
    if second.shown == "webhook":
        assert len(hook.called) == called, "the test request was made all the same"

    assert (await first.end(other_api, key)).status == first.ended
    assert (await first.end(api, key)).status == first.absent
    assert (await second.make(api, key, hook)).status == second.made
    assert (await api.call("GET", f"/v1/channels/{key.id}", key=key)).json["kind"] == second.shown


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_all_kinds_are_cleared_blindly(api: Api, key: ApiKey, hook: Hook, kind: Kind) -> None:
    """As many clients begin: DELETE of each kind, whichever is there."""
    await kind.make(api, key, hook)

    for each in KINDS:
        expected = each.ended if each is kind else each.absent
        assert (await each.end(api, key)).status == expected

    for each in KINDS:
        assert (await each.end(api, key)).status == each.absent
    assert (await api.call("GET", "/v2/notification/channel", key=key)).status == 404
