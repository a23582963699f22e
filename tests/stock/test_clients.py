"""Stock clients of Go and Node at our doors, direct and behind proxies.

Each subscribes, publishes 50 notifications one after the other, and polls until it has all of them.
"""

import asyncio
import contextlib
import json
import os
from typing import Any

import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.programs import program
from tests.stock.receivers import HERE, go_program

# Building the Go program may take a minute on a busy machine.
pytestmark = pytest.mark.timeout(300)

COUNT = 50
_WITHIN_S = 60


def command_of(client: str) -> list[str]:
    """The client as a program; ends the test if what runs it is missing."""
    if client == "go":
        return [str(go_program()), "journey"]
    return [program("node"), str(HERE / "node" / "client.mjs"), client.removeprefix("node ")]


async def travelled(client: str, key: ApiKey, door: str) -> dict[str, Any]:
    """What the client reports of its journey."""
    variables = {"POLLS": door, "REST": door, "SECRET": key.secret, "COUNT": str(COUNT)}
    process = await asyncio.create_subprocess_exec(
        *command_of(client),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("client", ["go", "node fetch", "node agent"])
async def test_a_journey(api: Api, key: ApiKey, door: str, client: str) -> None:
    journey = await travelled(client, key, door)

    assert journey["numbers"] == list(range(COUNT))
    assert journey["publish_calls"] == COUNT + 1
    if journey["publish_connections"] is not None:
        assert (journey["publish_connections"], journey["poll_connections"]) == (1, 1), "both are kept"
    assert (await api.call("GET", f"/v1/channels/{key.id}", key=key)).json["pending"] == 0
