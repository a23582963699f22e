"""An edge that sends few pings sends one with each write; the pongs confirm one after the other."""

import pytest

from services.socket_edge.spare_pings import SparePings
from tests.socket_edge.conftest import PING_TIMEOUT_S, Client, Clock, pending

LONG_S = 1000.0


@pytest.fixture
async def quiet(client: Client, clock: Clock) -> Client:
    """A client of an edge that has pings to spare, and would ping it by itself only now and then."""
    clock.ahead_s += LONG_S
    client.edge.ping_spacing_s = LONG_S / 2
    client.edge.spare_pings = SparePings()
    return client


async def test_each_write_carries_a_ping(quiet: Client) -> None:
    for number in (1, 2, 3):
        quiet.socket.deliver(pending(number))

    assert quiet.kinds == ["send", "ping"] * 3
    await quiet.pong(1)
    assert quiet.socket.acked_until == "2-0"
    await quiet.pong(2)
    assert quiet.socket.acked_until == "3-0"
    assert quiet.kinds == ["send", "ping"] * 3, "nothing is left to confirm"


async def test_a_client_that_answers_late_has_few_pings_in_flight(quiet: Client) -> None:
    for number in range(1, 31):
        quiet.socket.deliver(pending(number))
        quiet.socket._share = 1.0

    assert len(quiet.pings) == 16
    await quiet.pong()
    assert quiet.socket.acked_until == "16-0"
    assert len(quiet.pings) == 17
    await quiet.pong()
    assert quiet.socket.acked_until == "30-0"


async def test_no_ping_follows_one_that_was_sent_long_ago(quiet: Client, clock: Clock) -> None:
    quiet.socket.deliver(pending(1))
    clock.ahead_s += 1.5
    quiet.socket.deliver(pending(2))

    assert quiet.kinds == ["send", "ping", "send"]


async def test_the_pong_to_the_oldest_ping_is_late_and_overdue_whatever_follows_it(
    quiet: Client, clock: Clock
) -> None:
    quiet.socket.deliver(pending(1))
    sent_s = clock.now_s()
    clock.ahead_s += 0.5
    quiet.socket.deliver(pending(2))

    late_s = PING_TIMEOUT_S / 4
    assert quiet.socket.next_check_s == pytest.approx(sent_s + late_s, abs=0.4)
    await quiet.pong(0)
    assert quiet.socket.next_check_s == pytest.approx(sent_s + 0.5 + late_s, abs=0.4)
    await quiet.socket.check(sent_s + 1 + late_s)
    assert quiet.socket.next_check_s == pytest.approx(sent_s + 0.5 + PING_TIMEOUT_S, abs=0.4)


async def test_the_window_grows_once_in_a_round_trip(quiet: Client) -> None:
    before = quiet.socket._share
    for number in (1, 2, 3):
        quiet.socket.deliver(pending(number))

    for number in range(3):
        await quiet.pong(number)

    assert quiet.socket._share == 2 * before


async def test_a_rewind_forgets_the_pings_in_flight(quiet: Client) -> None:
    quiet.socket.deliver(pending(1))
    quiet.socket.deliver(pending(2))

    quiet.socket.rewind()
    await quiet.pong(0)
    await quiet.pong(1)

    assert quiet.socket.acked_until == "0-0"


@pytest.mark.parametrize(
    ("pings_per_s", "seconds", "spared"),
    [
        pytest.param(5, 10, True, id="few"),
        pytest.param(9, 10, True, id="fewer than the rate"),
        pytest.param(30, 0.5, True, id="a burst"),
        pytest.param(30, 10, False, id="more than the rate"),
        pytest.param(10_000, 1, False, id="many"),
    ],
)
def test_pings_are_left_while_fewer_are_sent_than_the_rate(
    pings_per_s: int, seconds: float, spared: bool
) -> None:
    spare = SparePings(per_s=10, burst=20)
    now_s = 100.0
    for _ in range(int(pings_per_s * seconds)):
        spare.count(now_s)
        now_s += 1 / pings_per_s

    assert spare.are_left(now_s) is spared


def test_soon_after_a_flood_pings_are_left_again() -> None:
    spare = SparePings(per_s=10, burst=20)
    for _ in range(10_000):
        spare.count(100.0)

    assert not spare.are_left(100.9)
    assert spare.are_left(101.2)
