"""The compose file's topology as plain processes, behind Caddy with the deployed Caddyfile."""

from collections.abc import Iterator

import aiohttp
import pytest

from tests.deploy.caddy import Behind, behind_caddy
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.native import native_socket
from tests.harness.sockets import Receiver
from tests.harness.stack import running_stack
from tests.harness.tokens import issuer
from tests.harness.waiting import wait_until


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with (
        running_stack(
            gateways=1,
            edges=2,
            dispatchers=1,
            reapers=1,
            TRUSTED_PROXIES="127.0.0.0/8",
            ALLOWED_ORIGINS="none",
        ) as stack,
        behind_caddy(stack) as found,
    ):
        yield found


@pytest.fixture
def outside(behind: Behind, http: aiohttp.ClientSession) -> Api:
    """Calls the API through the proxy."""
    return Api(http, behind.origin, behind.stack.admin_token)


@pytest.fixture
async def receiving(outside: Api) -> ApiKey:
    key = await outside.api_key()
    await outside.register(key)
    await outside.subscribe(key, {"endpoint-name": "*"})
    return key


async def test_published_and_received_through_the_proxy(
    behind: Behind, outside: Api, receiving: ApiKey
) -> None:
    receiver = await Receiver.open(behind.origin, receiving)
    try:
        await outside.publish(receiving, *(reading(number) for number in range(5)))
        await receiver.received_numbers(range(5))
        await wait_until(lambda: _is_acked(outside, receiving))
    finally:
        await receiver.drop()


async def _is_acked(api: Api, key: ApiKey) -> bool:
    return await api.queue_size(key) == 0


async def test_a_page_of_the_proxys_host_opens_a_native_socket(behind: Behind, outside: Api) -> None:
    admin = await outside.api_key(scopes=("receive", "admin"))
    token = (await issuer(outside, admin)).token()
    async with native_socket(behind.origin, origin=behind.origin, token=token) as socket:
        assert await socket.ask(ping={}) == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/notification/websocket-connect", 426),
        ("GET", "/v2/notification/pull", 401),
        ("GET", "/api/v1/websocket", 401),
        ("GET", "/v1/stream?topic=orders.paid", 401),
        ("GET", "/v1/streams", 401),
        ("GET", "/v1/streams/orders.paid", 401),
        ("POST", "/api/v1/websocket/session", 400),
        ("GET", "/v2/notification/channel", 401),
        ("GET", "/v1/socket", 426),
        ("GET", "/openapi.json", 200),
        ("GET", "/asyncapi.json", 200),
        ("GET", "/metrics", 404),
        ("GET", "/livez", 404),
        ("GET", "/readyz", 404),
    ],
)
async def test_every_path_reaches_its_service(outside: Api, method: str, path: str, status: int) -> None:
    """Each status is one that the other service cannot return: it has no such path."""
    assert (await outside.call(method, path)).status == status


async def test_blackhole_accepts_sockets_on_every_path_of_its_origin(
    behind: Behind, http: aiohttp.ClientSession
) -> None:
    for path in ("/", "/socket", "/any"):
        async with http.ws_connect(behind.blackhole + path) as socket:
            assert not socket.closed


async def test_clients_reach_the_other_edge_while_one_is_away(
    behind: Behind, outside: Api, receiving: ApiKey
) -> None:
    """The proxy connects clients to the edge that is up, without waiting for a time-out."""
    stopped = behind.stack.edges[1]
    stopped.terminate()
    await wait_until(lambda: stopped.ended)
    try:
        for number in range(4):
            receiver = await Receiver.open(behind.origin, receiving)
            await outside.publish(receiving, reading(number))
            await receiver.received_numbers([number])
            await wait_until(lambda: _is_acked(outside, receiving))
            await receiver.drop()
    finally:
        stopped.start()
        stopped.wait_ready()
