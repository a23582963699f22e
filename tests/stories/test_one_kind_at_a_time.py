"""An API key has one channel: another kind is refused until the first is deleted."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.harness.api import Api, ApiKey, Response
from tests.harness.callbacks import Hook
from tests.harness.events import reading
from tests.harness.stack import Stack
from tests.stories.test_errors import assert_error


@dataclass(frozen=True)
class Sites:
    """A gateway, an edge, and a receiver of callbacks."""

    gateway: Api
    edge: Api
    hook: Hook


@dataclass(frozen=True)
class Kind:
    """How to create and delete a kind of channel; the expected statuses and bodies.

    `absent`: the response to deleting a missing channel (the body is not compared if it is our error).
    `shown`: the kind in /v1/channels.
    """

    shown: str
    make: Callable[[Sites, ApiKey], Awaitable[Response]]
    made: int
    path: str
    ended: tuple[int, str]
    absent: tuple[int, str]

    async def end(self, sites: Sites, key: ApiKey) -> tuple[int, str]:
        at = sites.edge if self.path.endswith("/pull") else sites.gateway
        response = await at.call("DELETE", self.path, key=key)
        if response.status == 404:
            assert_error(response, 404, "not_found")
            return 404, ""
        return response.status, response.text

    def __str__(self) -> str:
        return self.shown


KINDS = [
    Kind(
        shown="websocket",
        make=lambda sites, key: sites.gateway.call("PUT", "/v2/notification/websocket", key=key),
        made=201,
        path="/v2/notification/websocket",
        ended=(204, ""),
        absent=(404, ""),
    ),
    Kind(
        shown="webhook",
        make=lambda sites, key: sites.gateway.put_callback(key, sites.hook.url),
        made=204,
        path="/v2/notification/callback",
        ended=(204, ""),
        absent=(404, ""),
    ),
    Kind(
        shown="pull",
        make=lambda sites, key: sites.edge.call("GET", "/v2/notification/pull?noWait=true", key=key),
        made=204,
        path="/v2/notification/pull",
        ended=(200, "REMOVED"),
        absent=(200, "ALREADY_DELETED"),
    ),
]


@pytest.fixture
def sites(api: Api, stack: Stack, hook: Hook) -> Sites:
    return Sites(api, api.at(stack.edges[0].url), hook)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(KINDS, 2)), ids=str)
async def test_another_kind_is_refused_until_the_first_is_deleted(
    sites: Sites, key: ApiKey, first: Kind, second: Kind
) -> None:
    assert (await first.make(sites, key)).status == first.made
    await sites.gateway.publish(key, reading(1, to=key.id))
    called = len(sites.hook.called)

    refused = await second.make(sites, key)

    assert_error(refused, 400, "bad_request")
    assert first.shown in refused.json["message"]
    assert len(sites.hook.called) == called, "the test request was sent"
    assert await second.end(sites, key) == second.absent
    kept = (await sites.gateway.call("GET", f"/v1/channels/{key.id}", key=key)).json
    assert (kept["kind"], kept["pending"]) == (first.shown, 1)

    assert await first.end(sites, key) == first.ended
    assert await first.end(sites, key) == first.absent
    assert (await second.make(sites, key)).status == second.made
    made = (await sites.gateway.call("GET", f"/v1/channels/{key.id}", key=key)).json
    assert (made["kind"], made["pending"]) == (second.shown, 0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_creating_the_same_kind_again_is_no_conflict(sites: Sites, key: ApiKey, kind: Kind) -> None:
    await kind.make(sites, key)

    assert (await kind.make(sites, key)).status in (kind.made, 200)


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_deleting_every_kind_is_safe(sites: Sites, key: ApiKey, kind: Kind) -> None:
    """Many clients begin with a DELETE of each kind."""
    await kind.make(sites, key)

    for each in KINDS:
        assert await each.end(sites, key) == (each.ended if each is kind else each.absent)

    for each in KINDS:
        assert await each.end(sites, key) == each.absent
    assert (await sites.gateway.call("GET", "/v2/notification/channel", key=key)).status == 404
