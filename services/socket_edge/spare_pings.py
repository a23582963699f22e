"""The pings that an edge has to spare: while it sends few, each write carries one.

A client that closes as soon as it has read gets nothing again if a ping came with what it read. A ping costs
a pong and an ack, which matters to an edge that sends many: there a socket pings only as often as it must.
"""

# An edge that must send as many has none to spare.
PINGS_PER_S = 500
_BURST = 500
# After it had to send more, it spares none for so long at most.
_LONGEST_PAUSE_S = 1.0


class SparePings:
    """Counts all pings of an edge, and says whether there are some to spare."""

    def __init__(self, *, per_s: float = PINGS_PER_S, burst: int = _BURST) -> None:
        self._every_s = 1 / per_s
        self._ahead_s = burst / per_s
        # When the pings so far would all have been sent, if they were sent at the rate.
        self._until_s = 0.0

    def are_left(self, now_s: float) -> bool:
        """Whether a ping may be sent that need not be."""
        return max(self._until_s - now_s, 0.0) < self._ahead_s

    def count(self, now_s: float) -> None:
        """A ping is sent, whether or not it had to be."""
        latest_s = now_s + self._ahead_s + _LONGEST_PAUSE_S
        self._until_s = min(max(self._until_s, now_s) + self._every_s, latest_s)
