"""The documented configurations of nginx and HAProxy send each path to its service."""

import contextlib
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from websockets.exceptions import InvalidStatus

from tests.deploy import proxies
from tests.deploy.files import CHECKOUT
from tests.harness.native import native_socket, open_native
from tests.harness.processes import free_port
from tests.harness.stack import Stack

HELD = ["/v2/notification/websocket-connect", "/v2/notification/pull", "/v1/socket", "/v1/stream"]
SHORT = [
    *("/v1/streams", "/v1/streams/orders.paid/events", "/v1/stream/", "/v1/stream/x"),
    *("/v1/sockets", "/v1/socket/", "/v1/socket/x", "/v1/events"),
]
DEVICES = ["/v3/devices", "/v2/endpoints"]
SERVICES = ("edges", "gateways", "others")


def block(page: str, language: str) -> str:
    """The page's only block of this language."""
    text = (CHECKOUT / page).read_text()
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def verbatim(text: str) -> str:
    """For a template: braces stand for themselves."""
    return text.replace("{", "{{").replace("}", "}}")


def nginx_with(locations: str) -> str:
    """The tests' own configuration with these locations in place of its own."""
    server, _, _ = proxies.NGINX.partition("    upstream edges")
    upstreams = "".join(
        f"upstream {name} {{{{ server {{{name}}}; }}}}\n" for name in ("edges", "gateways", "others")
    )
    return f"{server}{upstreams}server {{{{ listen 127.0.0.1:{{port}};\n{verbatim(locations)} }}}} }}}}\n"


def of_the_readme() -> str:
    text = block("README.md", "nginx")
    for name, place in {
        "http://edge:8001": "http://edges",
        "http://gateway:8000": "http://gateways",
        "https://the-device-side.example": "http://others",
    }.items():
        assert name in text
        text = text.replace(name, place)
    return nginx_with(text)


def of_haproxy() -> str:
    defaults, _, _ = proxies.HAPROXY.partition("    default_backend")
    backends = "".join(f"backend {name}\n    server one {{{name}}}\n" for name in ("edges", "gateways"))
    return f"{defaults}{verbatim(block('docs/operations.md', 'haproxy'))}{backends}"


@contextlib.asynccontextmanager
async def named(*names: str) -> AsyncIterator[dict[str, str]]:
    """Servers that answer with their names; name: its address."""
    places, runners = {}, []
    for name in names:

        async def answer(_: web.Request, name: str = name) -> web.Response:
            return web.Response(text=name)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runners.append(runner := web.AppRunner(app))
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        places[name] = f"127.0.0.1:{port}"
    try:
        yield places
    finally:
        for runner in runners:
            await runner.cleanup()


CASES = [
    pytest.param(
        "nginx",
        nginx_with(block("docs/operations.md", "nginx")),
        ["/v1/socket", "/v1/stream"],
        [],
        id="nginx",
    ),
    pytest.param("nginx", of_the_readme(), HELD, DEVICES, id="nginx of the README"),
    pytest.param("haproxy", of_haproxy(), [*HELD, "/api/v1/websocket"], [], id="haproxy"),
]


@pytest.mark.parametrize(("kind", "template", "held", "others"), CASES)
async def test_each_path_reaches_its_service(
    kind: str, template: str, held: list[str], others: list[str], http: aiohttp.ClientSession
) -> None:
    expected = {
        path: service
        for service, paths in zip(SERVICES, (held, SHORT, others), strict=True)
        for path in paths
    }
    found: dict[str, str] = {}
    async with named(*SERVICES) as places:
        with proxies.proxy_by(kind, template, **places) as origin:
            for path in expected:
                async with http.get(origin + path) as response:
                    found[path] = await response.text()
    assert found == expected


@pytest.mark.parametrize(("kind", "template"), [pytest.param(*case.values[:2], id=case.id) for case in CASES])
async def test_a_page_of_the_proxys_host_opens_a_native_socket(
    kind: str, template: str, stack: Stack
) -> None:
    """The proxy passes on the upgrade, the subprotocol and the Host."""
    with stack.more_edges("of-own-pages", ALLOWED_ORIGINS="none") as [edge]:
        place = edge.url.removeprefix("http://")
        with proxies.proxy_by(kind, template, **dict.fromkeys(SERVICES, place)) as origin:
            async with native_socket(origin, origin=origin) as socket:
                [hello] = socket.of("hello")
                assert hello["hello"]["session"]
                assert await socket.ask(ping={}) == {}
            with pytest.raises(InvalidStatus) as refused:
                await open_native(origin, origin="https://other.example")
            assert refused.value.response.status_code == 403
