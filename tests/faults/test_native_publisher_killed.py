"""A publisher that keeps a socket with many requests under way, whose edge is killed.

With idempotency keys nothing is lost, and each event has one id: what the edge had stored and not answered
comes again under that, and nothing else does.
"""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.native import NativeSocket, native_socket
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_streams import put_rules

TOPIC = "orders.paid"
KEPT = [{"topics": ["orders.#"], "keep": {"count": 10_000, "age_s": 3600}}]
EVENTS = 3
REQUESTS = 300
KILL_AFTER = 100


@dataclass
class Publisher:
    """Sends requests without waiting, as many as may be unanswered; what was not answered it sends again."""

    secret: str
    edges: list[str]
    unanswered: dict[int, dict[str, Any]] = field(default_factory=dict)
    answered: dict[int, list[str]] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    offsets: dict[str, str] = field(default_factory=dict)
    may_return: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Ends when all requests are answered."""
        numbers = iter(range(REQUESTS))
        for edge in itertools.cycle(self.edges):
            if len(self.answered) == REQUESTS:
                return
            try:
                async with native_socket(edge, bearer=self.secret) as socket:
                    await self._publish(socket, numbers)
            except (OSError, ConnectionClosed, EOFError):
                pass
            await self.may_return.wait()

    async def _publish(self, socket: NativeSocket, numbers: Any) -> None:
        [hello] = socket.of("hello")
        room = hello["hello"]["limits"]["unanswered_publishes"]
        self.repeated |= set(self.unanswered)
        refs = {await socket.begin(publish=body): number for number, body in self.unanswered.items()}
        seen = 0
        while not socket.has_ended and len(self.answered) < REQUESTS:
            while len(refs) < room and (number := next(numbers, None)) is not None:
                body = self.unanswered[number] = body_of(number)
                refs[await socket.begin(publish=body)] = number
            await self._until_more(socket, seen)
            answers, seen = socket.frames[seen:], len(socket.frames)
            for answer in answers:
                if "ref" in answer:
                    await self._on_answer(socket, answer, refs)

    async def _until_more(self, socket: NativeSocket, seen: int) -> None:
        await wait_until(lambda: len(socket.frames) > seen or socket.has_ended, within_s=60)

    async def _on_answer(self, socket: NativeSocket, answer: dict[str, Any], refs: dict[int, int]) -> None:
        number = refs.pop(answer["ref"])
        if "error" in answer:
            # Its first request may still be running, as far as Redis knows.
            assert answer["error"]["code"] in ("conflict", "unavailable"), answer
            await asyncio.sleep(0.05)
            refs[await socket.begin(publish=self.unanswered[number])] = number
            return
        body = self.unanswered.pop(number)
        self.answered[number] = [event["id"] for event in answer["published"]]
        assert len(self.answered[number]) == len(body["events"])
        for event in answer["published"]:
            self.offsets[event["id"]] = event["stream"]["offset"]


def body_of(number: int) -> dict[str, Any]:
    events = [{"topic": TOPIC, "data": number * EVENTS + each} for each in range(EVENTS)]
    return {"events": events, "idempotency_key": f"request {number}"}


async def retained(api: Api, key: ApiKey) -> list[dict[str, Any]]:
    """All that the stream has, in order."""
    found: list[dict[str, Any]] = []
    query = "?limit=100"
    while True:
        response = await api.call("GET", f"/v1/streams/{TOPIC}/events{query}", key=key)
        assert response.status == 200, response.text
        events = response.json["events"]
        if not events:
            return found
        found += events
        query = f"?limit=100&after={events[-1]['offset']}"


@pytest.mark.timeout(180)
async def test_an_edge_that_is_killed_loses_nothing_and_doubles_no_id(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack: Stack = start(edges=2)
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key(scopes=("publish", "receive", "channels"))
    await put_rules(api, key, KEPT)
    await api.register(key)
    assert (await api.call("PUT", "/v1/bindings", key=key, json=[TOPIC])).status == 204
    receiver = await listen(key, stack.edges[1].url)
    publisher = Publisher(key.secret, [edge.url for edge in stack.edges])
    running = asyncio.create_task(publisher.run())

    await wait_until(lambda: len(publisher.answered) >= KILL_AFTER and publisher.unanswered, within_s=60)
    stack.edges[0].kill()
    with stack.valkey.client() as redis:
        marks = list(redis.scan_iter("*:running:*"))
        for mark in marks:
            # Ten seconds later they would be over.
            redis.pexpire(mark, 1)
    publisher.may_return.set()
    await running

    assert publisher.repeated, "nothing was under way"
    ids = [event_id for number in range(REQUESTS) for event_id in publisher.answered[number]]
    assert len(set(ids)) == REQUESTS * EVENTS, "each event has one id, by whichever run"
    kept = await retained(api, key)
    assert {event["id"] for event in kept} == set(ids)
    data = {event["id"]: event["data"] for event in kept}
    assert [data[each] for each in ids] == list(range(REQUESTS * EVENTS))
    offsets = {(event["id"], event["offset"]) for event in kept}
    assert offsets >= set(publisher.offsets.items()), "each is where its answer says"
    again = {event_id for number in publisher.repeated for event_id in publisher.answered[number]}
    assert copies([event["id"] for event in kept]) <= again
    await wait_until(lambda: {item["id"] for _, item in receiver.items} >= set(ids), within_s=60)
    assert {item["id"] for _, item in receiver.items} == set(ids)


def copies(ids: list[str]) -> set[str]:
    """What is there more than once: what the killed edge had stored, and could not answer."""
    return {event_id for event_id, count in Counter(ids).items() if count > 1}
