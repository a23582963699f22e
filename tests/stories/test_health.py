"""Every service has /livez, /readyz and /metrics on its service_api port."""

import re

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import Service, free_port
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


@pytest.fixture(params=["gateway", "socket-edge"])
def service(request: pytest.FixtureRequest, stack: Stack) -> Service:
    return stack.gateways[0] if request.param == "gateway" else stack.edges[0]


async def test_liveness_and_readiness(api: Api, service: Service) -> None:
    api.url = service.url
    for path in ("/livez", "/readyz"):
        response = await api.call("GET", path)
        assert response.status == 200
        assert response.headers["X-Request-Id"]


async def test_metrics_are_in_the_prometheus_format(api: Api, service: Service) -> None:
    api.url = service.url
    response = await api.call("GET", "/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if line and not line.startswith("#")]
    assert lines
    wrong = [line for line in lines if not re.fullmatch(r"[a-z_:][\w:]*(\{.*\})? \S+", line, flags=re.I)]
    assert not wrong


async def test_metrics_have_no_customer_data_in_labels(
    api: Api, channel: ApiKey, stack: Stack, listen: Listen
) -> None:
    """No ids, topics or devices: labels have few values."""
    receiver = await listen(channel)
    await api.publish(channel, reading(1, to=channel.id, ep="a-device-of-mine"))
    await receiver.received_numbers([1])

    for service in stack.services:
        api.url = service.url
        text = (await api.call("GET", "/metrics")).text
        for private in (channel.id, channel.account, "a-device-of-mine"):
            assert private not in text


async def test_the_edge_counts_open_sockets(api: Api, channel: ApiKey, stack: Stack, listen: Listen) -> None:
    with stack.more_edges("edge-counting") as [edge]:
        api.url = edge.url
        before = await _values(api)
        await listen(channel, edge.url)
        after = await _values(api)

    grown = {name for name, value in after.items() if value == before.get(name, 0.0) + 1}
    assert any("socket" in name for name in grown), grown


async def test_metrics_can_have_a_separate_port(api: Api, stack: Stack) -> None:
    """Then the service's port does not serve them: its callers may not be allowed to read them."""
    port = free_port()
    with stack.more_edges("edge-metrics_api", METRICS_PORT=port) as [edge]:
        metrics_api, service_api = api.at(f"http://127.0.0.1:{port}"), api.at(edge.url)
        assert "notify_sockets" in (await metrics_api.call("GET", "/metrics")).text
        assert (await service_api.call("GET", "/metrics")).status == 404
        assert (await service_api.call("GET", "/readyz")).status == 200
        assert (await metrics_api.call("GET", "/readyz")).status == 404
        edge.terminate()
        await wait_until(lambda: edge.ended)
        assert edge.exit_code == 0


@pytest.mark.parametrize("kind", ["gateway", "reaper", "dispatcher"])
async def test_every_service_supports_a_separate_metrics_port(api: Api, stack: Stack, kind: str) -> None:
    make = {"gateway": stack.new_gateway, "reaper": stack.new_reaper, "dispatcher": stack.new_dispatcher}
    port = free_port()
    service = make[kind](f"{kind}-metrics_api", METRICS_PORT=port)
    try:
        service.start()
        await wait_until(lambda: service.get("/readyz") == 200, within_s=60, what=lambda: service.tail)
        metrics_api, service_api = api.at(f"http://127.0.0.1:{port}"), api.at(service.url)
        assert "notify_redis_up" in (await metrics_api.call("GET", "/metrics")).text
        assert (await service_api.call("GET", "/metrics")).status == 404
        service.terminate()
        await wait_until(lambda: service.ended)
        assert service.exit_code == 0
    finally:
        service.close()


async def _values(api: Api) -> dict[str, float]:
    text = (await api.call("GET", "/metrics")).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
