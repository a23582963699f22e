"""Webhooks on stock servers: whatever is usual for one, everything arrives once and in order.

A receiver may answer early, close when it likes, or send more than was asked for: docs/protocols/callbacks.md
says what counts. How a batch shrinks after a 413 is not the subject here; the receivers have the behaviour
`limit` for it (100 kB).
"""

from collections.abc import Iterator
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from shared.outbound.client import Outbound
from tests.harness.api import Api, ApiKey
from tests.harness.certificates import Certificates
from tests.harness.events import reading, readings
from tests.harness.waiting import wait_until
from tests.outbound.conftest import LOOPBACK
from tests.stock.conftest import Receivers
from tests.stock.receivers import StockReceiver, Taken

# Building the Go program may take a minute on a busy machine.
pytestmark = pytest.mark.timeout(300)

ONE_BY_ONE = 3
COUNT = 20
PADDING_BYTES = 400
LISTENERS = {
    "go": ["http", "https"],
    "node": ["http", "https", "h2"],
    "plain": ["http", "https"],
    "asgi": ["http", "https", "h11", "h11s"],
    "aio": ["http", "https"],
}
BEHAVIOURS = [
    *("ok", "no-content", "no-content-with-body", "early", "limit", "close", "close-unannounced"),
    *("drops-reused", "slow", "gzip", "chunked", "trailers", "early-hints", "continue-unasked", "long-body"),
    *("http10", "redirect-301", "redirect-302", "redirect-303", "redirect-307", "redirect-308"),
]
# What a server cannot be made to do.
IMPOSSIBLE = {
    "go": {"http10", "continue-unasked"},
    "node": {"http10"},
    "plain": set[str](),
    "asgi": {
        *("http10", "continue-unasked", "early-hints", "trailers"),
        *("drops-reused", "close-unannounced"),
    },
    "aio": {"http10", "continue-unasked", "trailers", "close-unannounced"},
}
# The others run with the long tests.
QUICK_LISTENERS = {("go", "https"), ("node", "h2"), ("plain", "http")}
LONG_BEHAVIOURS = {"redirect-301", "redirect-302", "redirect-308"}


def _marks(server: str, listener: str, behaviour: str = "") -> tuple[pytest.MarkDecorator, ...]:
    is_quick = (server, listener) in QUICK_LISTENERS and behaviour not in LONG_BEHAVIOURS
    return () if is_quick else (pytest.mark.long,)


def _rows() -> Iterator[ParameterSet]:
    for server, listeners in LISTENERS.items():
        for listener in listeners:
            for behaviour in BEHAVIOURS:
                if behaviour not in IMPOSSIBLE[server]:
                    name = f"{server} {listener} {behaviour}"
                    marks = _marks(server, listener, behaviour)
                    yield pytest.param(server, listener, behaviour, marks=marks, id=name)
    # An idle connection ends about when the next request is written. (aiohttp ends also new ones then.)
    for server in ("go", "node", "asgi"):
        yield pytest.param(server, "brief", "ok", id=f"{server} brief")


@pytest.mark.parametrize(("server", "listener", "behaviour"), list(_rows()))
async def test_everything_is_delivered_once_and_in_order(
    api: Api, receivers: Receivers, server: str, listener: str, behaviour: str
) -> None:
    receiver, key = receivers(server), await api.api_key()
    path = f"/{behaviour}/{key.id}"
    await api.register_webhook(key, receiver.url(listener, path))

    for number in range(ONE_BY_ONE):
        await api.publish(key, reading(number, to=key.id))
        await until_nothing_waits(api, key)
    await api.publish(key, *readings(range(ONE_BY_ONE, COUNT), to=key.id, padding=PADDING_BYTES))
    await until_nothing_waits(api, key)

    taken = receiver.taken(path)
    attempts = await deliveries(api, key)
    assert [taken.status for taken in taken] == [attempt["status"] for attempt in attempts]
    accepted = [each for each in taken if each.status in (200, 204)]
    assert_redirected_once(behaviour, taken)
    assert len({each.webhook_id for each in accepted}) == len(accepted), "nothing comes twice"
    assert sum(attempt["batch"] for attempt in attempts if attempt["status"] in (200, 204)) == COUNT
    if behaviour != "early":
        assert [number for each in accepted for number in each.numbers] == list(range(COUNT))
    assert_plain_requests(taken)
    assert_connections(behaviour, listener, taken)
    assert receiver.taken(f"/elsewhere{path}") == []


async def until_nothing_waits(api: Api, key: ApiKey) -> None:
    """Asks for a retry when an attempt has failed: the backoff is shown elsewhere."""
    state: dict[str, Any] = {}

    async def is_empty() -> bool:
        state.update((await api.call("GET", f"/v1/channels/{key.id}", key=key)).json)
        if state.get("failed_attempts"):
            await api.call("POST", f"/v1/channels/{key.id}/deliveries/retry", key=key)
            state.clear()
        return state.get("pending") == 0

    await wait_until(is_empty, within_s=60, what=lambda: state)


async def deliveries(api: Api, key: ApiKey) -> list[dict[str, Any]]:
    """Oldest first."""
    found = (await api.call("GET", f"/v1/channels/{key.id}/deliveries", key=key)).json["deliveries"]
    return list(reversed(found))


def assert_redirected_once(behaviour: str, taken: list[Taken]) -> None:
    """The first request gets the redirect, and comes again under its id."""
    if not behaviour.startswith("redirect-"):
        assert {each.status for each in taken} <= {200, 204}
        return
    assert taken[0].status == int(behaviour.removeprefix("redirect-"))
    assert taken[1].webhook_id == taken[0].webhook_id
    assert taken[1].body == taken[0].body
    assert {each.status for each in taken[1:]} == {200}


def assert_plain_requests(taken: list[Taken]) -> None:
    """Nothing that a receiver must understand: HTTP/2, a chunked body, an expectation, a coding."""
    for each in taken:
        assert each.version == "HTTP/1.1"
        assert each.length > 0
        assert each.header("expect") is None
        assert each.header("transfer-encoding") is None
        assert each.header("accept-encoding") == "identity"


def assert_connections(behaviour: str, listener: str, taken: list[Taken]) -> None:
    peers = [each.peer for each in taken]
    if behaviour in ("close", "close-unannounced", "http10", "long-body", "drops-reused"):
        assert len(set(peers)) == len(peers), "no connection is used again"
    elif behaviour == "ok" and listener != "brief":
        assert len(set(peers)) == 1, "the connection is kept"


# As large as a batch is by default.
LARGE = b"[" + b" " * 256 * 1024 + b"]"


@pytest.mark.parametrize(("behaviour", "status"), [("limit", 413), ("early", 200)])
@pytest.mark.parametrize(
    ("server", "listener"),
    [
        pytest.param(server, listener, marks=_marks(server, listener))
        for server, listeners in LISTENERS.items()
        for listener in listeners
    ],
)
async def test_a_response_before_the_end_of_the_request_counts(
    receivers: Receivers, certificates: Certificates, server: str, listener: str, behaviour: str, status: int
) -> None:
    """Also if the receiver closes the connection with the body unread, which resets it."""
    receiver: StockReceiver = receivers(server)
    async with Outbound(policy=LOOPBACK, ca=certificates.pem("authority")) as calls:
        for number in range(5):
            url = receiver.url(listener, f"/{behaviour}/large-{number}")
            attempt = await calls.send("PUT", url, headers={}, body=LARGE)
            assert (attempt.status, attempt.error) == (status, "")
