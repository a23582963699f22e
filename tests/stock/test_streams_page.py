"""docs/streams.md as its reader follows it: its commands, in their order, and the output that it shows."""

import json
import re
from pathlib import Path
from typing import Any

from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api
from tests.harness.waiting import wait_until
from tests.stock.commands import Reader
from tests.stock.documented import STREAMS_PAGE, blocks

OURS = "http://127.0.0.1:8000"


def shape(text: str) -> list[list[tuple[str, Any]]]:
    """Of each message the names of its fields, and of JSON the members."""
    found = []
    for message in text.strip().split("\n\n"):
        fields = [line.partition(": ") for line in message.splitlines() if not line.startswith(":")]
        shown = [(name, list(json.loads(value)) if name == "data" else None) for name, _, value in fields]
        found.append(shown)
    return [each for each in found if each]


async def test_the_commands_do_what_the_page_says(api: Api, origin: AllInOne, tmp_path: Path) -> None:
    key = await api.api_key(scopes=("publish", "receive", "channels"))
    reader = Reader(key, {OURS: origin.url})
    prepare, publish = blocks("sh", STREAMS_PAGE)
    live, from_earliest = blocks("bash", STREAMS_PAGE)
    [answer] = blocks("json", STREAMS_PAGE)
    [shown] = blocks("text", STREAMS_PAGE)
    output = tmp_path / "output"

    await reader.run(prepare)
    async with reader.running(live, output):
        await wait_until(lambda: "event: recovered" in output.read_text(), what=output.read_text)
        [answered] = await reader.run(publish)
        await wait_until(lambda: "order-17" in output.read_text(), what=output.read_text)
    assert shape(output.read_text()) == shape(shown)
    documented = json.loads(answer)
    documented["events"][0]["stream"] = answered["events"][0]["stream"]
    assert answered == documented

    async with reader.running(from_earliest, output):
        await wait_until(lambda: "order-17" in output.read_text(), what=output.read_text)
    last_id = re.findall("^id: (.*)$", output.read_text(), flags=re.MULTILINE)[-1]

    await reader.run(publish.replace("order-17", "order-18"))
    back = live.rstrip() + f' -H "Last-Event-ID: {last_id}"\n'
    async with reader.running(back, output):
        await wait_until(lambda: "order-18" in output.read_text(), what=output.read_text)
    assert '"recovered":true' in output.read_text()
    assert "order-17" not in output.read_text()
