"""curl at our doors: what its options make of a request changes nothing in what it does."""

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.harness.all_in_one import AllInOne
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, readings
from tests.harness.polls import PULL, numbers_in
from tests.harness.programs import program
from tests.harness.waiting import wait_until

COUNT = 50
JSON = ["-H", "Content-Type: application/json"]


@dataclass(frozen=True)
class Printed:
    """What curl printed: the body, and of the last response the status and the version."""

    body: str
    status: int
    version: str
    connections: int
    sent_bytes: int
    exit_code: int
    errors: str


def arguments(key: ApiKey | None, *options: str) -> list[str]:
    """Of a curl that reports at its end. Its own configuration is not read, and nothing waits forever."""
    secret = ["-H", f"Authorization: Bearer {key.secret}"] if key is not None else []
    facts = "\n%{http_code} %{http_version} %{num_connects} %{size_upload}"
    always = ["-q", "-sS", "--noproxy", "*", "--max-time", "60", "-w", facts]
    return [program("curl"), *always, *secret, *options]


async def curl(key: ApiKey | None, *options: str, body: bytes = b"") -> Printed:
    """Runs it to its end; `body` is its input."""
    process = await asyncio.create_subprocess_exec(
        *arguments(key, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(body)
    text, _, facts = out.decode().rpartition("\n")
    status, version, connections, sent = facts.split()
    assert process.returncode is not None
    return Printed(
        text, int(status), version, int(connections), int(sent), process.returncode, errors.decode()
    )


FROM_INPUT = ["--data-binary", "@-"]
UPLOADS: dict[str, Sequence[str]] = {
    "as it is": FROM_INPUT,
    "HTTP/1.0": ["--http1.0", *FROM_INPUT],
    # With `Expect: 100-continue`.
    "in chunks": ["-X", "POST", "-T", "-"],
    "in chunks without a question": ["-X", "POST", "-H", "Expect:", "-T", "-"],
    "with a question": ["-H", "Expect: 100-continue", *FROM_INPUT],
    "compressed response": ["--compressed", *FROM_INPUT],
    "HTTP/2 by an upgrade": ["--http2", *FROM_INPUT],
    "transfer codings": ["--tr-encoding", *FROM_INPUT],
}


QUICK_IF_LARGE = {"in chunks", "with a question"}


@pytest.mark.parametrize(
    ("upload", "large"),
    [
        *(pytest.param(upload, False, id=upload) for upload in UPLOADS),
        *(
            pytest.param(
                upload,
                True,
                id=f"{upload}, large",
                marks=() if upload in QUICK_IF_LARGE else (pytest.mark.long,),
            )
            for upload in UPLOADS
        ),
    ],
)
async def test_a_publish(api: Api, key: ApiKey, door: str, upload: str, large: bool) -> None:
    """curl asks by itself before it sends more than a megabyte."""
    count, padding = (30, 40_000) if large else (3, 0)
    body = json.dumps(readings(range(count), to=key.id, padding=padding)).encode()
    assert (await api.call("GET", PULL, key=key, params={"noWait": "true"})).status == 204

    printed = await curl(key, *JSON, *UPLOADS[upload], f"{door}/v1/events", body=body)

    assert (printed.exit_code, printed.status) == (0, 202), printed
    assert [event["channels"] for event in json.loads(printed.body)["events"]] == [1] * count
    assert printed.version in ("1.1", "1"), "Caddy answers HTTP/1.0 to HTTP/1.0"
    assert printed.sent_bytes >= len(body)
    assert await all_that_waits(api, key) == list(range(count))


async def all_that_waits(api: Api, key: ApiKey) -> list[int]:
    numbers: list[int] = []
    while (response := await api.call("GET", PULL, key=key, params={"noWait": "true"})).status == 200:
        numbers += numbers_in(response)
    return numbers


async def test_a_refused_upload_is_not_sent(key: ApiKey, origin: AllInOne) -> None:
    """A client that asks first learns it before it sends anything."""
    stranger = ApiKey(id=key.id, account=key.account, secret="ak_wrong")
    question = ["-H", "Expect: 100-continue", "--expect100-timeout", "30"]
    body = b" " * 4 * 1024 * 1024

    printed = await curl(stranger, *JSON, *question, *FROM_INPUT, f"{origin.url}/v1/events", body=body)

    assert (printed.exit_code, printed.status) == (0, 401), printed
    assert printed.sent_bytes == 0


@pytest.mark.parametrize("version", [[], ["--http1.0"]], ids=["HTTP/1.1", "HTTP/1.0"])
async def test_polls_and_a_subscription(
    api: Api, key: ApiKey, door: str, version: list[str], tmp_path: Path
) -> None:
    """One curl polls once for each notification, on one connection if it may keep it."""
    first = await curl(key, *version, f"{door}{PULL}?noWait=true")
    assert (first.exit_code, first.status) == (0, 204), first
    wanted = '[{"endpoint-name": "sensor-1"}]'
    put = await curl(key, *version, *JSON, "-X", "PUT", "-d", wanted, f"{door}/v2/subscriptions")
    assert (put.exit_code, put.status) == (0, 204), put

    out = tmp_path / "out"
    urls = [f"{door}{PULL}"] * COUNT
    with out.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*arguments(key, "-N", *version, *urls), stdout=file)
    try:
        for number in range(COUNT):
            await api.publish(key, reading(number))
            await wait_until(partial(has_polled, out, number + 1), what=lambda: polled(out))
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    facts = re.findall(r"^(\d+) (\S+) (\d+) \d+", out.read_text(), re.M)
    assert [status for status, _, _ in facts] == ["200"] * COUNT
    assert sum(int(connections) for _, _, connections in facts) == (COUNT if version else 1)
    left = await curl(key, f"{door}{PULL}?noWait=true")
    assert (left.status, left.body) == (204, "")


def has_polled(out: Path, count: int) -> bool:
    return polled(out) == list(range(count))


def polled(out: Path) -> list[int]:
    """The numbers in what was printed so far; the last line may be a part."""
    bodies = re.findall(r'\{"notifications":.*\]\}', out.read_text())
    return [number_of(item) for body in bodies for item in json.loads(body)["notifications"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [(PULL, 405), ("/v1/events", 405), ("/v2/subscriptions", 200), ("/openapi.json", 200), ("/nowhere", 404)],
)
async def test_a_head(api: Api, key: ApiKey, origin: AllInOne, path: str, status: int) -> None:
    """It takes no notification."""
    assert (await api.call("GET", PULL, key=key, params={"noWait": "true"})).status == 204
    await api.publish(key, reading(1, to=key.id))

    # Curl would wait for a body that came in spite of it on the second use of the connection.
    printed = await curl(key, "-I", origin.url + path, origin.url + path)

    assert (printed.exit_code, printed.status, printed.connections) == (0, status, 0), printed
    assert (await api.call("GET", f"/v1/channels/{key.id}", key=key)).json["pending"] == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/v1/./events", 404), ("/v1/../v1/events", 404), ("/../v1/events", 404), ("//v1/events", 404)),
        *(("/v1//events", 404), ("/v1/events/../events", 405), ("/v1/events%00", 404)),
        *(("/v1/%65vents", 404), ("/v1/events?", 202)),
    ],
)
async def test_a_path_is_taken_as_it_is(key: ApiKey, origin: AllInOne, path: str, status: int) -> None:
    body = json.dumps([reading(1, to=key.id)]).encode()

    printed = await curl(key, *JSON, "--path-as-is", *FROM_INPUT, origin.url + path, body=body)

    assert (printed.exit_code, printed.status) == (0, status), printed


@pytest.mark.parametrize("option", ["--http2-prior-knowledge", "--haproxy-protocol"])
async def test_another_protocol_is_ended_at_once(key: ApiKey, origin: AllInOne, option: str) -> None:
    printed = await curl(key, option, f"{origin.url}/v2/subscriptions")

    assert printed.status in (0, 400), printed
    assert printed.exit_code != 28, "it did not wait for the time limit"
    assert (await curl(key, f"{origin.url}/v2/subscriptions")).status == 200
