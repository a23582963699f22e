"""The client of docs/native.md in Chromium, at a gateway that says and does whatever one may."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import BrowserContext

from tests.browser.gateways import CHANNEL, PAGE, FakeGateway, Frame, begun, delivery, event, refusal
from tests.browser.pages import Tab, browser, serving
from tests.harness.waiting import wait_until
from tests.stock.documented import NATIVE_PAGE, blocks

pytestmark = [pytest.mark.long, pytest.mark.timeout(200)]

WITHIN_S = 30


class World:
    """A tab with the client, and its gateway."""

    def __init__(self, tab: Tab, gateway: FakeGateway) -> None:
        self.tab, self.gateway = tab, gateway

    async def value(self, name: str) -> Any:
        return await self.tab.page.evaluate(name)

    async def until_seen(self, *ids: str) -> None:
        """Exactly these, in this order."""

        async def have_come() -> bool:
            return len(await self.value("seen")) >= len(ids)

        await wait_until(have_come, within_s=WITHIN_S, what=lambda: self.tab.warnings)
        assert await self.value("seen") == list(ids)

    async def until_connected(self, count: int) -> None:
        """So many times, and it has asked for its topic and its channel."""
        connections = self.gateway.connections

        def has_asked() -> bool:
            return len(connections) >= count and bool(connections[count - 1].asked("open"))

        await wait_until(has_asked, within_s=WITHIN_S, what=lambda: self.tab.warnings)

    async def until_told(self, state: str) -> str:
        """Why it is so."""

        async def is_told() -> Any:
            return [why for said, why in await self.value("told") if said == state]

        await wait_until(is_told, within_s=WITHIN_S)
        return str((await is_told())[-1])


@contextlib.asynccontextmanager
async def world(*, page: str = "", **answers: Any) -> AsyncIterator[World]:
    async with browser() as context, world_in(context, page=page, **answers) as made:
        yield made


@contextlib.asynccontextmanager
async def world_in(context: BrowserContext, *, page: str = "", **answers: Any) -> AsyncIterator[World]:
    gateway = FakeGateway()
    gateway.answers |= answers
    [module] = blocks("js", NATIVE_PAGE)
    files = {"index.html": PAGE, "native.mjs": module}
    async with serving(files, routes=gateway.routes) as url:
        tab = Tab(await context.new_page())
        await tab.open(url + page)
        made = World(tab, gateway)
        await made.until_connected(1)
        yield made
        assert tab.errors == []
        await tab.page.close()


async def test_after_these_codes_it_comes_back_behind_its_place() -> None:
    async with browser() as context:
        for code in (1000, 1001, 1011, 1012, 1013, 4001, 4002, 4005, 4008):
            async with world_in(context) as found:
                await comes_back(found, code)


async def comes_back(found: World, code: int) -> None:
    [connection] = found.gateway.connections
    await connection.say(event(1), event(2), {"moved": {"topic": "a", "offset": "5-0"}})
    await connection.socket.close(code=code, message=b"why")
    await found.until_connected(2)
    again = found.gateway.connections[1]
    assert again.asked("subscribe") == [{"topic": "a", "epoch": "e", "after": "5-0"}]
    await again.say(event(6))
    await found.until_seen("a1", "a2", "a6")
    assert await found.until_told("waiting") == f"{code} why"


async def test_after_these_codes_it_stays_away() -> None:
    async with browser() as context:
        for code in (4000, 4003, 4004, 4009, 4999):
            async with world_in(context) as found:
                [connection] = found.gateway.connections
                await connection.socket.close(code=code, message=b"why")
                assert await found.until_told("ended") == f"{code} why"
                assert "waiting" not in dict(await found.value("told"))


async def test_it_waits_longer_after_each_failure_and_each_time_by_chance() -> None:
    async with world() as found:
        await found.value("delays.length = 0")
        found.gateway.answers["auth"] = refusal("unauthenticated")
        [connection] = found.gateway.connections
        await connection.socket.close(code=1012)
        await wait_until(lambda: len(found.gateway.connections) >= 8, within_s=WITHIN_S)
        waits = [ms for ms in await found.value("delays") if ms < 800 * 3600][:7]
    least = [500, 1000, 2000, 4000, 8000, 15_000, 15_000]
    assert all(ms <= waited <= 3 * ms for ms, waited in zip(least, waits, strict=True)), waits
    assert len(set(waits)) == len(waits)


async def test_a_connection_that_says_nothing_is_left() -> None:
    async with world(page="/#impatient") as found:
        found.gateway.answers["ping"] = lambda _, __, ___: []
        await found.until_connected(2)
        assert await found.until_told("waiting") == "1006 nothing is heard"


async def test_what_failed_comes_again_in_order_and_what_was_on_its_way_is_dropped() -> None:
    async with world(nack=lambda _, __, ___: []) as found:
        [connection] = found.gateway.connections
        await found.value("fails.add('k2')")
        await connection.say(delivery(1), delivery(2), delivery(3))
        await wait_until(lambda: connection.asked("nack"), within_s=WITHIN_S)
        [nack] = connection.asked("nack")
        assert nack == {"channel": CHANNEL, "entry": "2-0", "delay_s": 5}
        [ref] = [each["ref"] for each in connection.requests if "nack" in each]
        await connection.say(delivery(4), {"ref": ref, "nacked": nack})
        await connection.say(*map(delivery, (2, 3, 4)))
        await found.until_seen("k1", "k2", "k2", "k3", "k4")
        await wait_until(lambda: len(connection.asked("ack")) == 4, within_s=WITHIN_S)
        assert [each["entry"] for each in connection.asked("ack")] == ["1-0", "2-0", "3-0", "4-0"]


async def test_what_cannot_be_given_back_comes_again_on_the_next_connection() -> None:
    async with world(nack=refusal("invalid")) as found:
        [connection] = found.gateway.connections
        await found.value("fails.add('k2')")
        await connection.say(delivery(1), delivery(2), delivery(3))
        await found.until_connected(2)
        again = found.gateway.connections[1]
        await again.say(delivery(2), delivery(3))
        await found.until_seen("k1", "k2", "k2", "k3")
        await wait_until(lambda: len(again.asked("ack")) == 2, within_s=WITHIN_S)
        assert [each["entry"] for each in connection.asked("ack")] == ["1-0"]


async def test_an_event_of_a_lost_connection_is_not_acknowledged_on_the_next_one() -> None:
    async with world() as found:
        [connection] = found.gateway.connections
        # It is still handled when its connection is lost.
        await found.value("window.wait = new Promise((resolve) => (window.go = resolve)), null")
        await found.value(
            "client.open('slow', { handle: async ({ id }) => { await wait; seen.push(id); } }), null"
        )
        await wait_until(lambda: len(connection.asked("open")) == 2, within_s=WITHIN_S)
        await connection.say(delivery(1))
        await connection.socket.close(code=1012)
        await found.until_connected(2)
        again = found.gateway.connections[1]
        await wait_until(lambda: len(again.asked("open")) == 2, within_s=WITHIN_S)
        await found.value("go()")
        await found.until_seen("k1")
        await again.say(delivery(1))
        await found.until_seen("k1", "k1")
        await wait_until(lambda: again.asked("ack"), within_s=WITHIN_S)
        assert len(again.asked("ack")) == 1


async def test_another_owner_is_told_and_a_pause_is_not_the_end() -> None:
    async with world() as found:
        [connection] = found.gateway.connections
        closed: Frame = {"channel": CHANNEL, "reason": "paused", "reconnect": True}
        found.gateway.answers["open"] = refusal("unavailable", retry_after_s=5)
        await connection.say({"closed": closed})
        await wait_until(lambda: len(connection.asked("open")) >= 4, within_s=WITHIN_S)
        await connection.say(event(1))
        await found.until_seen("a1")

        taken: Frame = {"closed": {**closed, "reason": "taken_over", "reconnect": False}}
        found.gateway.answers["open"] = lambda *asked: [*FakeGateway().answers["open"](*asked), taken]
        await found.until_seen("a1", "lost: taken_over")
        assert len(found.gateway.connections) == 1


async def test_a_refused_request_ends_only_what_it_is_about() -> None:
    async with world(subscribe=refusal("forbidden")) as found:
        [connection] = found.gateway.connections
        await connection.say(delivery(1))
        await found.until_seen("ended: forbidden: m", "k1")
        await connection.socket.close(code=1012)
        await found.until_connected(2)
        assert found.gateway.connections[1].asked("subscribe") == []


async def test_a_gap_is_told_and_a_hole_too() -> None:
    def gone(connection: Any, ref: int, body: Any) -> list[Frame]:
        [answer] = begun(connection, ref, body)
        answer["subscribed"] |= {"recovered": False, "reason": "trimmed"}
        return [answer]

    async with world(subscribe=gone) as found:
        [connection] = found.gateway.connections
        hole = {"topic": "a", "epoch": "f", "offset": "9-0", "recovered": False, "reason": "lost"}
        await connection.say(event(1), {"recovered": hole})
        await found.until_seen("trimmed", "a1", "lost")
        await connection.socket.close(code=1012)
        await found.until_connected(2)
        [asked] = found.gateway.connections[1].asked("subscribe")
        assert asked == {"topic": "a", "epoch": "f", "after": "9-0"}
