"""A full Redis refuses what is new; all that is there still goes out, and makes room."""

import aiohttp

from tests.conftest import Listen, Start
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading, readings


async def test_publishes_wait_while_sockets_drain(
    start: Start, http: aiohttp.ClientSession, listen: Listen
) -> None:
    stack = start(edges=2, maxmemory="16mb")
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    key = await api.api_key()
    quiet, doomed = [await api.api_key(account=key.account) for _ in range(2)]
    for each in (key, quiet, doomed):
        await api.register(each)
    bystander = await listen(quiet, stack.edges[0].url)

    accepted = await fill(api, key)
    assert accepted > 100
    waiting = await api.queue_size(key)
    with stack.valkey.client() as redis:
        redis.config_set("maxmemory", "8mb")  # so that there is no doubt that it is full

    # Full, but whoever reads, ends or moves something is welcome.
    assert {service.get("/readyz") for service in stack.services} == {200}
    newer = await listen(quiet, stack.edges[1].url)
    assert await bystander.closed() == 1001
    assert (await api.delete_channel(doomed)).status == 204
    receiver = await listen(key, stack.edges[1].url)
    await receiver.received(waiting, within_s=60)
    assert receiver.numbers[:accepted] == [*range(accepted)]
    await api.until(key, queue_size=0)

    before = len(receiver.numbers)
    assert await api.publish(key, reading(7, to=key.id), reading(8, to=quiet.id)) == [1, 1]
    await receiver.received(before + 1)
    await newer.received_numbers([8])
    assert newer.open_now


async def fill(api: Api, key: ApiKey) -> int:
    """Publishes, in ever smaller batches, until not even one more goes in; how many did."""
    accepted = 0
    for size in (20, 1, 1, 1):
        while True:
            batch = range(accepted, accepted + size)
            response = await api.post_events(key, readings(batch, to=key.id, padding=10_000))
            if response.status != 202:
                break
            accepted = batch.stop
        assert response.status == 503, response
        assert response.json["type"] == "service_unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    return accepted
