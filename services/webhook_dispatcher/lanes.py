"""The places of a dispatcher's requests: a fast lane and a slow one, each shared fairly between accounts.

Webhooks that fail or respond slowly have the slow lane, so they can never occupy all places. A request that
lasts in the fast lane gives its place back after two seconds and goes on without one. So dead receivers that
nothing is known of yet hold the fast lane for seconds, not for a whole time-out.
"""

import asyncio

from shared.outbound.places import FairPlaces

_FAST_S = 2.0


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

    def ask_fast(self, account: str) -> "Place":
        """Asks for a place of a webhook that is expected to respond quickly. Give it back in any case."""
        return Place(self._fast, account, overtime=self._overtime)

    def ask_slow(self, account: str) -> "Place":
        """Asks for a place of a webhook that has failed, or that is slow. Give it back in any case."""
        return Place(self._slow, account)


class Place:
    """A place for one request: `asked` is done once it is taken."""

    def __init__(self, places: FairPlaces, account: str, *, overtime: FairPlaces | None = None) -> None:
        self._places = places
        self._account = account
        self._overtime = overtime
        self._timer: asyncio.TimerHandle | None = None
        self.asked = places.ask(account)

    def begin(self) -> None:
        """The request begins: its time in the fast lane runs."""
        if self._overtime is not None:
            self._timer = asyncio.get_running_loop().call_later(_FAST_S, self._leave)

    def give_back(self) -> None:
        """Ends the request, or stops waiting for the place."""
        if self._timer is not None:
            self._timer.cancel()
        self._places.give_up(self._account, self.asked)

    def _leave(self) -> None:
        if self._overtime is not None and self._overtime.take_now(self._account):
            self._places.give_back(self._account)
            self._places = self._overtime
