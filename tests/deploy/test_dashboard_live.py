"""A real Prometheus scrapes real services: panels show something, alerts and autoscalers find series."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Start
from tests.deploy.chart import NAMESPACE, RELEASE, named, objects
from tests.deploy.rules import ALERTS, GROUPS, RECORDS, RULES, selectors
from tests.deploy.test_alerts import ADAPTER, PANELS
from tests.harness import sse
from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.channels import AccountChannels
from tests.harness.events import readings
from tests.harness.native import native_socket
from tests.harness.polls import PULL
from tests.harness.prometheus import Prometheus, prometheus, scrape_by
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import webhook

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(prometheus() is None, reason="there is no Prometheus (`make prometheus` builds it)"),
]
# Of the chart's interval Grafana makes four times as much, and more.
RATE_INTERVAL = "15s"
KEPT_S = 600
# Of a single Redis, and outside an image.
MAY_BE_EMPTY = {"primary", "revision"}


@dataclass(frozen=True, slots=True)
class Query:
    """One line of a panel."""

    title: str
    legend: str
    expression: str

    def __str__(self) -> str:
        return f"{self.title}, {self.legend}"


QUERIES = [
    Query(
        panel["title"],
        target["legendFormat"],
        target["expr"]
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$namespace", NAMESPACE)
        .replace("$release", RELEASE),
    )
    for panel in PANELS
    for target in panel["targets"]
]


class Traffic:
    """Something of everything that the panels show, again and again."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession, api: Api) -> None:
        self._stack, self._http, self._api = stack, http, api
        self.place = ""

    async def begin(self, hook_url: str, gone_url: str) -> None:
        api = self._api
        self.socket, self.poll, self.hooked, self.full, self.poor = [await api.api_key() for _ in range(5)]
        for key in (self.socket, self.full):
            await api.register(key)
        await api.call("PUT", "/v2/notification/pull", key=self.poll)
        await api.register_webhook(self.hooked, hook_url)
        self.reading = await api.api_key(scopes=("publish", "receive", "channels"))
        await sse.keep(api, self.reading, sse.TOPIC)
        await sse.bind(api, self.reading, sse.TOPIC)
        self.natives = AccountChannels(api, self.reading)
        await self.natives.create("pull", name="again")
        await self.natives.create("webhook", bindings=["gone"], webhook={"url": gone_url})
        quotas = {"quotas": {"events_per_s": 1, "burst_s": 1}}
        await api.admin("PATCH", f"/v1/accounts/{self.poor.account}", json=quotas)

    async def go_on(self) -> None:
        """A second of it."""
        api, edges = self._api, self._stack.edges
        idle = await api.api_key()
        await api.register(idle)
        receiver = await Receiver.open(edges[0].url, self.socket)
        other = await Receiver.open(edges[0].url, self.socket)
        browser = await Blackhole.open(self._http, edges[0].url + "/socket")
        polling = asyncio.create_task(api.at(edges[0].url).call("GET", PULL, key=self.poll))
        reader = await self.read(edges[0].url)
        try:
            await browser.ask("ping", token=self.socket.secret)
            await browser.subscribe("object.doc_edited.user")
            for key in (self.socket, self.poll, self.hooked):
                await api.publish(key, *readings(range(10), to=key.id))
            await api.publish(self.full, *readings(range(40), to=self.full.id, padding=40_000))
            await api.publish(self.socket, {"topic": "object.doc_edited.user.u", "data": {"id": "u"}})
            once = {"Idempotency-Key": "dashboard"}
            await api.call("POST", "/v1/events", key=self.socket, json=readings(range(1)), headers=once)
            await sse.publish(api, self.reading, 1, id="once")
            assert (await self.natives.post("again", "resend", event_id="once")).status == 202
            await api.publish(self.reading, {"topic": "gone", "data": 1})
            await wait_until(lambda: reader.data or reader.has_ended, within_s=60)
            self.place = reader.last_event_id
            for _ in range(3):
                await api.post_events(self.poor, readings(range(10)))
            async with native_socket(edges[0].url, bearer=self.reading.secret) as native:
                await native.ask(ping={})
                await native.refused(subscribe={"topic": "of.others"})
            await self._strangers(edges[0].url)
            await asyncio.wait([polling], timeout=5)
            # An edge that has just been without Redis may close it.
            await wait_until(lambda: len(other.items) >= 10 or not other.open_now, within_s=60)
        finally:
            polling.cancel()
            for each in (receiver, other):
                await each.close()
            await browser.close()
            await reader.close()

    async def read(self, url: str) -> sse.StreamClient:
        """Reads a stream, where the reader before has ended."""
        return await sse.StreamClient.open(self._http, url, self.reading, sse.TOPIC, last_event_id=self.place)

    async def _strangers(self, url: str) -> None:
        """Beyond their rate, which is that of their address."""
        headers = {"Authorization": "Bearer ak_" + "0" * 32, "X-Forwarded-For": "203.0.113.9"}
        for _ in range(4):
            # It is closed with 1008, or refused with a 429.
            with contextlib.suppress(InvalidStatus):
                await (await Receiver.open(url, self.socket, additional_headers=headers)).close()


@pytest.fixture
async def stack(start: Start, http: aiohttp.ClientSession) -> Stack:
    return start(
        gateways=2,
        edges=2,
        reapers=1,
        dispatchers=1,
        maxmemory="256mb",
        ALLOW_PRIVATE_CALLBACKS=1,
        # Several scrapes must see the edge drain, with each kind of connection.
        DRAIN_DELAY_S=8,
        REDIS_OUTAGE_LIMIT_S=2,
        LONG_POLL_WAIT_S=20,
        QUEUE_LIMIT_BYTES=1024 * 1024,
        WEBSOCKET_EXPIRY_S=3,
        TRUSTED_PROXIES="127.0.0.1",
        FAILED_AUTHENTICATION_RATE_PER_ADDRESS=1,
        FAILED_AUTHENTICATION_BURST_PER_ADDRESS=3,
    )


@pytest.fixture
async def server(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Prometheus]:
    by_service = {
        "gateway": stack.gateways,
        "socket-edge": stack.edges,
        "webhook-dispatcher": stack.dispatchers,
        "expiry-reaper": stack.reapers,
    }
    targets = {name: [f"127.0.0.1:{each.port}" for each in all] for name, all in by_service.items()}
    monitor = named("everything", "PodMonitor")
    scrape = scrape_by(monitor, namespace=NAMESPACE, release=RELEASE, targets=targets)
    running = Prometheus(stack.folder, scrape=scrape, groups=GROUPS)
    try:
        running.start()
        await wait_until(lambda: running.is_ready(http), within_s=60)
        yield running
    finally:
        running.close()


async def shown(server: Prometheus, http: aiohttp.ClientSession, query: Query) -> bool:
    """Has the line had a value, and the labels of its legend?"""
    now_s = time.time()
    times = {"start": now_s - KEPT_S, "end": now_s, "step": 1}
    found = await server.ask(http, "query_range", query=query.expression, **times)
    labels = set(re.findall(r"{{(\w+)}}", query.legend))
    for series in found["result"]:
        assert labels - MAY_BE_EMPTY <= series["metric"].keys(), f"{query}: {series['metric']}"
        assert not labels or labels & series["metric"].keys(), f"{query} has a line without a name"
    return any(value != "NaN" for series in found["result"] for _, value in series["values"])


async def test_each_panel_shows_something_and_each_alert_finds_its_series(
    stack: Stack, server: Prometheus, http: aiohttp.ClientSession
) -> None:
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    traffic = Traffic(stack, http, api)
    missing = [*QUERIES, *scaling_queries()]

    async def are_all_shown() -> bool:
        await traffic.go_on()
        missing[:] = [query for query in missing if not await shown(server, http, query)]
        return not missing

    async with webhook() as hook, webhook() as gone:
        gone.says(410)
        await traffic.begin(hook.url, gone.url)
        await traffic.go_on()
        hook.says(500)
        await traffic.go_on()
        await wait_until(lambda: hook.calls)
        hook.takes()
        await fail(stack, server, http, traffic.socket)
        await drain(stack, http, traffic)
        await wait_until(are_all_shown, within_s=60, what=lambda: [str(query) for query in missing])
        await assert_variables_have_values(server, http)
        await assert_rules_are_healthy(server, http)
        without: set[str] = set()

        async def are_all_found() -> bool:
            await traffic.go_on()
            without.clear()
            without.update(await unfound(server, http))
            return not without

        await wait_until(are_all_found, within_s=60, what=lambda: without)


def scaling_queries() -> list[Query]:
    """The queries by which KEDA and prometheus-adapter scale, as they send them."""
    by_keda = [
        trigger["metadata"]["query"]
        for scaled in objects("keda", "ScaledObject")
        for trigger in scaled["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    pods = f'namespace="{NAMESPACE}",pod=~"{RELEASE}-.+"'
    by_adapter = [
        rule["metricsQuery"].replace("<<.LabelMatchers>>", pods).replace("<<.GroupBy>>", "pod")
        for rule in ADAPTER
    ]
    found = [*by_keda, *by_adapter, *(rule["seriesQuery"] for rule in ADAPTER)]
    return [Query("autoscaler", query, query) for query in found]


async def assert_variables_have_values(server: Prometheus, http: aiohttp.ClientSession) -> None:
    """Those of the dashboard, by which an operator chooses an installation."""
    for name, value in (("namespace", NAMESPACE), ("release", RELEASE)):
        async with http.get(f"{server.url}/api/v1/label/{name}/values?match[]=notify_redis_up") as response:
            assert (await response.json())["data"] == [value]


async def fail(stack: Stack, server: Prometheus, http: aiohttp.ClientSession, key: ApiKey) -> None:
    """Redis is full, and then hangs: requests, handshakes and sockets fail by it."""
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    receiver = await Receiver.open(stack.edges[0].url, key)

    async def is_refused() -> bool:
        return (await api.post_events(key, readings(range(1), to=key.id))).status == 503

    with stack.valkey.client() as redis:
        redis.config_set("maxmemory", "1mb")
        await wait_until(is_refused, within_s=60)
        redis.config_set("maxmemory", "256mb")
    stack.valkey.freeze()
    try:
        await wait_until(is_refused, within_s=60)
        with pytest.raises(InvalidStatus):
            await Receiver.open(stack.edges[0].url, key)
        await receiver.closed(within_s=60)
        down = Query("", "", "min(notify_redis_up) == 0")
        await wait_until(lambda: shown(server, http, down), within_s=60, what="an outage")
    finally:
        stack.valkey.thaw()
    for service in stack.services:
        await wait_until(lambda: service.ready, within_s=60)  # noqa: B023


async def drain(stack: Stack, http: aiohttp.ClientSession, traffic: Traffic) -> None:
    """An edge with all kinds of connections drains."""
    edge = stack.edges[1]
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    polled = await api.api_key()
    await api.call("PUT", "/v2/notification/pull", key=polled)
    receiver = await Receiver.open(edge.url, traffic.socket)
    reader = await traffic.read(edge.url)
    polling = asyncio.create_task(api.at(edge.url).call("GET", PULL, key=polled))
    browser = await Blackhole.open(http, edge.url + "/socket")
    edge.terminate()
    await wait_until(lambda: edge.ended, within_s=60)
    async with asyncio.timeout(60):
        await asyncio.wait([polling])
        await receiver.close()
        await browser.close()
        await reader.close()


async def assert_rules_are_healthy(server: Prometheus, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{server.url}/api/v1/rules") as response:
        groups = (await response.json())["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule for rule in rules if (rule["health"], rule.get("lastError", "")) != ("ok", "")] == []
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in ALERTS} | RECORDS


async def unfound(server: Prometheus, http: aiohttp.ClientSession) -> set[str]:
    """The selectors of the rules that have had no series, without the matchers of their release."""
    now_s = time.time()
    times: dict[str, Any] = {"start": now_s - KEPT_S, "end": now_s}
    found = set()
    for expression in {rule["expr"] for rule in RULES}:
        for selector in selectors(expression):
            text = re.sub(r"\[\w+\]|\s+offset.*", "", str(selector.prettify()))
            if not await server.ask(http, "series", **{"match[]": text, **times}):
                found.add(_without_scope(text))
    return found


def _without_scope(selector: str) -> str:
    return re.sub(rf'(?:namespace="{NAMESPACE}"|release="{RELEASE}"),?', "", selector).replace(",}", "}")
