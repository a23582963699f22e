"""The places of a dispatcher's requests: a fast lane and a slow one, each shared fairly between accounts.

Webhooks that fail or respond slowly have the slow lane, so they can never occupy all places. A request that
lasts in the fast lane gives its place back after two seconds and goes on without one. So dead receivers that
nothing is known of yet hold the fast lane for seconds, not for a whole time-out.
"""

import asyncio

from shared.outbound.places import FairPlaces

_TURN_S = 0.5
_FAST_TURNS = 4


class Lanes:
    """Half of `requests` places in each lane; `per_account` of them for one account, half in each lane.

    As many requests again may go on without a place. Their memory is why there is a bound at all; an account
    has at most `per_account` of them.
    """

    def __init__(self, requests: int, *, per_account: int) -> None:
        half, share = max(1, requests // 2), max(1, per_account // 2)
        self._fast = FairPlaces(half, per_account=share)
        self._slow = FairPlaces(half, per_account=share)
        self._overtime = FairPlaces(requests, per_account=per_account)

        # Requests of the fast lane, longest first, with the turn of the timer in which each began.
        self._running: dict[Place, int] = {}
        self._turn = 0
        self._timer: asyncio.TimerHandle | None = None

    def ask_fast(self, account: str) -> "Place":
        """Asks for a place of a webhook that is expected to respond quickly. Give it back in any case."""
        return Place(self._fast, account, running=self._running)

    def ask_slow(self, account: str) -> "Place":
        """Asks for a place of a webhook that has failed, or that is slow. Give it back in any case."""
        return Place(self._slow, account)

    def begin(self, place: "Place") -> None:
        """The request begins: its time in the fast lane runs."""
        if place.running is None:
            return
        place.running[place] = self._turn
        # One timer for all: one for each request would cost more than the rest of its place.
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TURN_S, self._end_turn)

    def _end_turn(self) -> None:
        """Takes the place of each request that has had its time in the fast lane."""
        self._turn += 1
        for place, turn in list(self._running.items()):
            if self._turn - turn < _FAST_TURNS:
                break
            if self._overtime.take_now(place.account):
                place.move(self._overtime)
        self._timer = None
        if self._running:
            self._timer = asyncio.get_running_loop().call_later(_TURN_S, self._end_turn)


class Place:
    """A place for one request. While `asked` is not None and not done, it is not taken yet."""

    __slots__ = ("_places", "account", "asked", "running")

    def __init__(
        self, places: FairPlaces, account: str, *, running: "dict[Place, int] | None" = None
    ) -> None:
        self._places = places
        self.account = account
        self.running = running
        self.asked = None if places.take_now(account) else places.ask(account)

    def give_back(self) -> None:
        """Ends the request, or stops waiting for the place."""
        if self.running is not None:
            self.running.pop(self, None)
        if self.asked is None:
            self._places.give_back(self.account)
        else:
            self._places.give_up(self.account, self.asked)

    def move(self, places: FairPlaces) -> None:
        """Gives the place back for one of `places` that is taken already."""
        if self.running is not None:
            self.running.pop(self, None)
        self._places.give_back(self.account)
        self._places, self.asked = places, None
