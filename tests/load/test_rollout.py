"""`rollout` sees what an operation costs clients and publishers, and loses nothing in a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from tests.conftest import Start
from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.load.bench import Bench, RunOptions
from tests.load.connections import Refused
from tests.load.latencies import now_us
from tests.load.messages import Target
from tests.load.publishers import Plan
from tests.load.repeating import Repeating
from tests.load.result import Result
from tests.load.scenarios.rollout import Crowd, rollout
from tests.load.screen import Screen
from tests.load.test_scenarios import installation_of

CROWD = Crowd(sockets=4, polls=2, rate=100, array=2, seconds=60, until_eof=False)


@contextlib.asynccontextmanager
async def running(stack: Stack, crowd: Crowd = CROWD) -> AsyncIterator[tuple[Bench, "asyncio.Task[Result]"]]:
    """A run that publishes already."""
    bench = Bench(installation_of(stack), RunOptions(lanes=2), Screen())
    run = asyncio.create_task(rollout(bench, crowd, label="rollout"))
    try:
        await wait_until(lambda: run.done() or bench.received > 10, within_s=60)
        yield bench, run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await bench.close()


async def end(bench: Bench, run: "asyncio.Task[Result]") -> Result:
    await asyncio.gather(*(worker.call("stop") for worker in bench.publishers))
    return await run


async def restart(service: Service) -> None:
    service.terminate()
    await wait_until(lambda: service.ended, within_s=60, what=lambda: service.tail)
    service.start()
    await wait_until(lambda: service.ready, within_s=60, what=lambda: service.tail)


@pytest.mark.timeout(180)
async def test_a_restarted_edge_is_seen_as_gaps_and_closes(start: Start) -> None:
    stack = start(edges=1, DRAIN_DELAY_S=0, DRAIN_WINDOW_S=0.2)
    async with running(stack) as (bench, run):
        await restart(stack.edges[0])
        result = await end(bench, run)
    assert result.count.published > 10
    assert (result.count.lost, result.count.out_of_order, result.count.unknown) == (0, 0, 0)
    assert result.figures["reconnects"] == CROWD.sockets
    assert result.figures["reconnects_per_socket"] == 1
    assert result.figures["gap_max_ms"] > 0
    assert result.figures["away_at_the_end"] == 0
    assert result.figures["repeated_requests"] == 0
    assert f"{CROWD.sockets} sockets were closed with 1001" in result.warnings
    assert any("connects were refused by" in warning for warning in result.warnings)


@pytest.mark.timeout(180)
async def test_every_dialect_and_webhooks_outlive_a_restarted_edge(start: Start) -> None:
    stack = start(edges=1, dispatchers=1, DRAIN_DELAY_S=0, DRAIN_WINDOW_S=0.2, ALLOW_PRIVATE_CALLBACKS=1)
    crowd = Crowd(sockets=2, polls=1, webhooks=2, kazoo=2, cognism=2, rate=100, array=3, seconds=60)
    async with running(stack, crowd) as (bench, run):
        await restart(stack.edges[0])
        result = await end(bench, run)
    figures = result.figures
    assert (result.count.lost, result.count.out_of_order, result.count.unknown) == (0, 0, 0)
    assert sum(worker.received for worker in bench.receivers if worker.name.startswith("hooks")) > 0
    assert figures["session_published"] > 0
    assert figures["session_lost"] == figures["session_away_at_the_end"] == 0
    # Their edge was away for a while: what was published then is missed, and not lost.
    assert figures["session_missed"] > 0
    assert figures["session_received"] + figures["session_missed"] >= figures["session_published"]
    assert figures["session_reconnects_per_socket"] == 1
    assert figures["session_gap_max_ms"] > 0
    assert "4 sessions were closed with 1001" in result.warnings


@pytest.mark.timeout(180)
async def test_a_restarted_gateway_is_seen_as_repeated_requests(start: Start) -> None:
    stack = start(edges=1)
    async with running(stack) as (bench, run):
        await restart(stack.gateways[0])
        result = await end(bench, run)
    assert (result.count.lost, result.count.unknown) == (0, 0)
    assert result.figures["reconnects"] == 0
    assert 0 < result.figures["repeated_more_than_once"] <= result.figures["repeated_requests"]


class Answers:
    """A server that answers each request with the next status; None: it closes the connection instead."""

    def __init__(self, statuses: Sequence[int | None]) -> None:
        self._statuses = list(statuses)
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                status = self._statuses.pop(0)
                if status is None:
                    break
                body = orjson.dumps({"events": [{"channels": 1}]})
                writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        writer.close()


async def publish_to(answers: Answers, requests: int) -> Repeating:
    publishers = Repeating()
    async with await asyncio.start_server(answers.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        targets = [Target(0, to="key")]
        await publishers.prepare(
            gateways=[url], secret="s", lanes=[0], all_lanes=1, targets=targets, size=200
        )
        try:
            await publishers.publish(plan=Plan(requests=requests), start_us=now_us())
        finally:
            await publishers.close()
    return publishers


@pytest.mark.parametrize(
    ("statuses", "causes", "more_than_once"),
    [
        ([202], {}, 0),
        ([503, 202], {"503": 1}, 0),
        ([409, 202], {"409": 1}, 0),
        ([None, 202], {"ConnectionResetError": 1}, 0),
        ([502, 504, 202], {"502": 1, "504": 1}, 1),
        ([502, None, 503, 202], {"502": 1, "ConnectionResetError": 1, "503": 1}, 1),
    ],
)
async def test_a_failed_request_is_repeated_unchanged(
    statuses: list[int | None], causes: dict[str, int], more_than_once: int
) -> None:
    answers = Answers(statuses)
    publishers = await publish_to(answers, 1)
    repeated = await publishers.repeated()
    assert len(answers.requests) == len(statuses)
    assert len(set(answers.requests)) == 1, "the key and the body stay"
    assert b"\r\nIdempotency-Key: " in answers.requests[0]
    assert dict(repeated.refused) == causes
    assert (repeated.requests, repeated.more_than_once) == (min(1, len(causes)), more_than_once)


async def test_each_request_has_a_key_of_its_own() -> None:
    answers = Answers([202, 202])
    await publish_to(answers, 2)
    keys = {request.partition(b"Idempotency-Key: ")[2].split()[0] for request in answers.requests}
    assert len(keys) == 2


async def test_what_a_repetition_cannot_end_fails() -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await publish_to(Answers([422]), 1)
    assert failed.group_contains(Refused, match="refused: 422")
