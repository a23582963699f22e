"""The bytes of a subscription: what a server may do to it, and what its listener hears of that."""

import asyncio
import contextlib
import itertools
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.redis import pubsub, subscription
from shared.redis.client import connect
from shared.redis.subscription import SubscriptionProtocol, subscribe
from shared.runtime.loops import end
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until

RESTORED, LOST = "restored", "lost"


class Heard:
    """What a listener hears: changes, and the messages of each read."""

    def __init__(self) -> None:
        self.all: list[str | list[bytes]] = []

    def on_messages(self, messages: Sequence[bytes]) -> None:
        self.all.append(list(messages))

    def on_restored(self) -> None:
        self.all.append(RESTORED)

    def on_lost(self) -> None:
        self.all.append(LOST)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


class Opened:
    """A protocol whose bytes the test decides."""

    def __init__(self, *names: str) -> None:
        self.heard, self.wire = Heard(), Wire()
        self.protocol = SubscriptionProtocol(names, self.heard)
        self.protocol.connection_made(self.wire)

    def receives(self, *chunks: bytes) -> list[str | list[bytes]]:
        """What is heard after these reads."""
        for chunk in chunks:
            self.protocol.data_received(chunk)
        return self.heard.all

    @property
    def error(self) -> BaseException | None:
        return self.protocol.closed.exception()


def array(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def confirmed(name: bytes, number: int) -> bytes:
    return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:%d\r\n" % (len(name), name, number)


def message(text: bytes) -> bytes:
    return array(b"message", b"a", text)


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    opened = Opened("a", "b")
    yield opened
    opened.protocol.connection_lost(None)


async def test_it_subscribes_to_all_names_at_once(opened: Opened) -> None:
    assert opened.wire.written == array(b"SUBSCRIBE", b"a", b"b")


async def test_it_is_restored_when_the_last_name_is_confirmed(opened: Opened) -> None:
    assert opened.receives(confirmed(b"a", 1)) == []
    assert opened.receives(confirmed(b"b", 2) + message(b"first")) == [RESTORED, [b"first"]]


async def test_messages_of_one_read_are_handed_over_together(opened: Opened) -> None:
    opened.receives(confirmed(b"a", 1) + confirmed(b"b", 2))

    heard = opened.receives(message(b"1") + message(b"2"), message(b"3"))

    assert heard == [RESTORED, [b"1", b"2"], [b"3"]]


@given(at=st.lists(st.integers(0, 400)), texts=st.lists(st.binary(max_size=40), min_size=1, max_size=5))
async def test_messages_may_be_split_anywhere(at: list[int], texts: list[bytes]) -> None:
    opened = Opened("a")
    data = confirmed(b"a", 1) + b"".join(map(message, texts))
    cuts = sorted({0, len(data), *(cut % len(data) for cut in at)})

    heard = opened.receives(*(data[start:end] for start, end in itertools.pairwise(cuts)))

    opened.protocol.connection_lost(None)
    assert heard[0] == RESTORED
    assert [text for messages in heard[1:] for text in messages] == texts


async def test_a_read_without_a_whole_message_hands_over_nothing(opened: Opened) -> None:
    assert opened.receives(message(b"1")[:-3]) == []


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*3\r\n$-7\r\n", b"\0\0\0\0\r\n"])
async def test_garbage_ends_it(opened: Opened, garbage: bytes) -> None:
    opened.receives(garbage)

    assert opened.wire.aborted
    assert isinstance(opened.error, RedisConnectionError)


async def test_a_refused_name_ends_it(opened: Opened) -> None:
    opened.receives(confirmed(b"a", 1) + b"-NOPERM no access to one of the channels\r\n")

    assert opened.wire.aborted
    assert isinstance(opened.error, RedisError)
    assert opened.heard.all == []


async def test_the_end_of_the_connection_ends_it(opened: Opened) -> None:
    opened.protocol.connection_lost(None)

    assert isinstance(opened.error, RedisConnectionError)


async def test_replies_to_pings_are_no_messages(opened: Opened) -> None:
    assert opened.receives(array(b"pong", b"")) == []


async def test_an_error_of_the_listener_ends_it(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Sequence[bytes]) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(opened.heard, "on_messages", fail)

    opened.receives(message(b"1"))

    assert opened.wire.aborted
    assert isinstance(opened.error, ValueError)


# Silence


def silences(opened: Opened, count: int) -> int:
    """How many pings were written after so many silent intervals."""
    for _ in range(count):
        opened.protocol._check_silence()
    return opened.wire.written.count(array(b"PING"))


async def test_a_silent_server_is_pinged_twice_and_then_left(opened: Opened) -> None:
    opened.receives(confirmed(b"a", 1))
    assert silences(opened, 1) == 0, "something came in the first interval"
    assert silences(opened, 2) == 2
    assert not opened.wire.aborted

    silences(opened, 1)
    assert opened.wire.aborted


async def test_a_server_that_answers_pings_late_is_kept(opened: Opened) -> None:
    for _ in range(5):
        silences(opened, 2)
        opened.receives(array(b"pong", b""))

    silences(opened, 1)
    assert not opened.wire.aborted


# With a server


@contextlib.asynccontextmanager
async def subscribed(redis: Redis) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(subscribe(redis, ["a"], heard))
    try:
        yield heard
    finally:
        await end(task)


async def test_a_wrong_password_is_a_loss_for_every_attempt(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subscription, "_RETRY_S", 0.01)
    path = valkey.url.removeprefix("unix://")
    with valkey.client() as direct:
        direct.acl_setuser("us", enabled=True, passwords=["+secret"], channels=["*"], commands=["+@all"])
        async with Redis(unix_socket_path=path, username="us", password="wrong") as redis:
            with caplog.at_level(logging.DEBUG, "shared.redis.subscription"):
                async with subscribed(redis) as heard:
                    await wait_until(lambda: len(heard.all) >= 2)
                    assert heard.all == [LOST] * len(heard.all)
                    direct.acl_setuser("us", enabled=True, passwords=["+wrong"])
                    await wait_until(lambda: heard.all[-1] == RESTORED)
    assert "AuthenticationError" in str([vars(record).get("facts") for record in caplog.records])


async def test_a_name_that_the_user_may_not_hear_is_a_loss(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_RETRY_S", 0.01)
    path = valkey.url.removeprefix("unix://")
    with valkey.client() as direct:
        direct.acl_setuser("us", enabled=True, passwords=["+secret"], channels=["b"], commands=["+@all"])
        async with (
            Redis(unix_socket_path=path, username="us", password="secret") as redis,
            subscribed(redis) as heard,
        ):
            await wait_until(lambda: len(heard.all) >= 2)
            assert heard.all == [LOST] * len(heard.all)


async def test_a_frozen_server_is_left_and_found_again(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections and answers nothing, as after a network that drops packets."""
    monkeypatch.setattr(pubsub, "_SILENCE_S", 0.05)
    async with connect(valkey.url) as redis, subscribed(redis) as heard:
        # Its silences are so short that a busy machine may be taken for one.
        await wait_until(lambda: heard.all[-1:] == [RESTORED])
        heard.all.clear()
        valkey.freeze()
        try:
            await wait_until(lambda: LOST in heard.all)
        finally:
            valkey.thaw()
        await wait_until(lambda: heard.all[-1] == RESTORED)


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    yield folder / "s"
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "serve",
    [
        lambda _, writer: writer.close(),
        lambda _, writer: writer.write(b"-ERR max number of clients reached\r\n"),
    ],
)
async def test_a_server_that_lets_no_connection_live_is_asked_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., None]
) -> None:
    monkeypatch.setattr(subscription, "_RETRY_S", 0.01)
    server = await asyncio.start_unix_server(serve, path)
    async with server, Redis(unix_socket_path=str(path)) as redis, subscribed(redis) as heard:
        await wait_until(lambda: len(heard.all) >= 3)

        assert heard.all == [LOST] * len(heard.all)


async def test_an_error_of_the_listener_is_raised(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(valkey.url) as redis:
        heard = Heard()

        def fail() -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(heard, "on_restored", fail)

        with pytest.raises(ValueError, match="a bug"):
            await asyncio.wait_for(subscribe(redis, ["a"], heard), 10)
