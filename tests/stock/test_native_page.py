"""docs/native.md as its reader follows it: its commands, and what the token that they print is good for."""

import json

from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api
from tests.harness.native import native_socket
from tests.stock.commands import Reader
from tests.stock.documented import NATIVE_PAGE, blocks

OURS = "http://127.0.0.1:8000"


async def test_the_commands_do_what_the_page_says(api: Api, origin: AllInOne) -> None:
    key = await api.api_key(scopes=("publish", "receive", "channels", "tokens"))
    reader = Reader(key, {OURS: origin.url})
    prepare, mint = blocks("sh", NATIVE_PAGE)
    [answer] = blocks("json", NATIVE_PAGE)

    [channel] = await reader.run(prepare)
    [minted] = await reader.run(mint)
    assert minted.keys() == json.loads(answer).keys()

    async with native_socket(origin.url, token=minted["token"]) as socket:
        await socket.ask(subscribe={"topic": "orders.paid"})
        opened = await socket.ask(open={"channel": "kitchen"})
        assert opened == {"channel": channel["id"], "name": "kitchen"}
        await api.at(origin.url).publish(key, {"topic": "orders.paid", "id": "order-17", "data": 17})
        frames = [await socket.next("event") for _ in range(2)]
    assert {("topic" in frame, frame["event"]["id"]) for frame in frames} == {
        (True, "order-17"),
        (False, "order-17"),
    }
