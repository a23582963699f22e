"""docs/webhooks.md as its reader follows it: its commands, in their order, and the request that it shows."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.waiting import wait_until
from tests.harness.webhooks import webhook
from tests.stock.commands import Reader
from tests.stock.documented import PAGE, DocumentedReceiver, blocks


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[DocumentedReceiver]:
    found = DocumentedReceiver("python", tmp_path)
    yield found
    found.close()


async def test_the_commands_do_what_the_page_says(
    mine: AccountChannels, origin: AllInOne, receiver: DocumentedReceiver
) -> None:
    an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {
        "http://127.0.0.1:8000": origin.url,
        "http://127.0.0.1:8080/hook": receiver.url,
        "2026-11-28T06:00:00Z": an_hour_ago,
    }
    assert all(written in PAGE for written in ours)
    reader = Reader(mine.key, ours)
    printed: list[Any] = []
    for block in blocks("sh"):
        printed += (now := await reader.run(block))
        if "/signing-secret" in block:
            await receiver.start(now[0]["signing_secret"])

    async def attempts() -> list[dict[str, Any]]:
        response = await mine.call("GET", "/partner/deliveries?event_id=order-18")
        return list(response.json["deliveries"])

    async def came_three_times() -> bool:
        return len(await attempts()) == 3

    await wait_until(came_three_times)
    assert {(each["again"], each["status"]) for each in await attempts()} == {
        *((None, 200), ("resend", 200), ("replay", 200)),
    }
    assert receiver.ids == ["order-17", "order-18"]
    [tested] = [each for each in printed if "accepted" in each]
    assert tested["accepted"]
    shown = await mine.get("partner")
    assert (shown["state"], shown["pending"], shown["webhook"]["backoff"]) == ("active", 0, [1, 10, 60])
    assert len((await mine.call("GET", "/partner/secrets")).json["secrets"]) == 2


async def test_the_request_is_what_the_page_shows(mine: AccountChannels) -> None:
    [block] = blocks("http")
    head, _, body = block.partition("\n\n")
    line, *headers = head.splitlines()
    names = {header.partition(":")[0].lower() for header in headers}
    async with webhook() as hook:
        await mine.create("webhook", bindings=["orders.#"], webhook={"url": hook.url})
        event = {"topic": "orders.paid", "id": "order-17", "data": {"order": 17, "total": 49.90}}
        await mine.api.publish(mine.key, event)
        await wait_until(lambda: hook.calls)

        [call] = hook.calls
        assert call.method == line.partition(" ")[0]
        assert names <= {name.lower() for name in call.headers}
        assert call.headers["Content-Type"] in head
        shown, came = json.loads(body), json.loads(call.body)
        here = {"source": f"/accounts/{mine.key.account}", "time": came["time"]}
        assert {**shown, **here} == came
        datetime.fromisoformat(shown["time"])
