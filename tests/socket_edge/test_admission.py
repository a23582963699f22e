"""The bounds of strangers' sockets keep nothing of a socket that has gone or has authenticated."""

import random
from typing import Any, cast

import pytest

from services.socket_edge.admission import Admission
from services.socket_edge.held import HeldSocket
from services.socket_edge.registry import Registry
from shared.model.api_keys import new_id
from shared.runtime.http.responses import Problem
from shared.runtime.settings import Settings

ADDRESSES = [f"192.0.2.{number}" for number in range(20)]


class Socket:
    """What the registry and the admission read of a socket."""

    def __init__(self, address: str) -> None:
        self.id = new_id()
        self.address: str | None = address
        self.is_held = False


class Door:
    """Opens and closes sockets as an edge does."""

    def __init__(self, **settings: Any) -> None:
        self.registry = Registry()
        self.admission = Admission(self.registry, Settings.model_validate(settings))
        self.open: list[HeldSocket] = []

    def enter(self, address: str, *, is_authenticated: bool = False) -> HeldSocket:
        socket = cast(HeldSocket, Socket(address))
        for each in self.admission.make_room(address, for_stranger=not is_authenticated):
            self.leave(each)
        self.registry.add(socket)
        if not is_authenticated:
            self.admission.add_stranger(socket, address)
        self.open.append(socket)
        return socket

    def leave(self, socket: HeldSocket) -> None:
        self.open.remove(socket)
        self.registry.remove(socket)
        self.admission.forget(socket)


def test_ten_thousand_addresses_leave_nothing() -> None:
    door = Door(max_unauthenticated_sockets=50)
    for number in range(10_000):
        door.enter(f"10.0.{number // 256}.{number % 256}")

    assert len(door.admission) == door.admission.addresses == len(door.registry) == 50
    for socket in list(door.open):
        door.leave(socket)
    assert len(door.admission) == door.admission.addresses == 0
    assert not any(door.registry.count_at(f"10.0.0.{number}") for number in range(256))


@pytest.mark.parametrize("seed", range(20))
def test_the_bounds_hold_in_any_order(seed: int) -> None:
    by_chance = random.Random(seed)
    door = Door(
        max_sockets_per_address=6,
        max_unauthenticated_sockets=15,
        max_unauthenticated_sockets_per_address=3,
    )
    authenticated: set[HeldSocket] = set()
    for _ in range(2000):
        address = by_chance.choice(ADDRESSES)
        match by_chance.choice(("stranger", "stranger", "customer", "authenticates", "leaves")):
            case "authenticates" if door.open:
                socket = by_chance.choice(door.open)
                door.admission.forget(socket)
                authenticated.add(socket)
            case "leaves" if door.open:
                door.leave(by_chance.choice(door.open))
            case kind:
                at_address = [each for each in door.open if each.address == address]
                try:
                    socket = door.enter(address, is_authenticated=kind == "customer")
                except Problem:
                    # Only authenticated sockets keep another out.
                    kept_out_by = at_address
                else:
                    authenticated |= {socket} if kind == "customer" else set()
                    kept_out_by = []
                assert authenticated.issuperset(kept_out_by)
                assert len(kept_out_by) in (0, 6)
        open_now = set(door.open)
        strangers = open_now - authenticated
        assert len(door.admission) == len(strangers) <= 15
        assert door.admission.addresses == len({each.address for each in strangers})
        for each in ADDRESSES:
            count = sum(socket.address == each for socket in open_now)
            assert count == door.registry.count_at(each) <= 6
            assert sum(socket.address == each for socket in strangers) <= 3
        authenticated &= open_now
