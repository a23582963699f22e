"""Records every wakeup on a Redis, also those that scripts publish."""

from typing import Any

from shared.store import keyspace

_EVERY = keyspace.wakeup("*")
_PREFIX = _EVERY.removesuffix("*")


class Overheard:
    """Records the wakeups of all instances, from now on. `direct` is a blocking client."""

    def __init__(self, direct: Any) -> None:
        self._pubsub = direct.pubsub()
        self._pubsub.psubscribe(_EVERY)
        self._next("psubscribe")

    def all(self) -> list[tuple[str, bytes]]:
        """The wakeups since the last call, each with its instance.

        Redis writes to a connection in order: every wakeup published by now precedes the pong.
        """
        self._pubsub.ping()
        wakeups: list[tuple[str, bytes]] = []
        while (message := self._next("pmessage", "pong"))["type"] == "pmessage":
            wakeups.append((message["channel"].decode().removeprefix(_PREFIX), message["data"]))
        return wakeups

    def close(self) -> None:
        self._pubsub.close()

    def _next(self, *kinds: str) -> Any:
        while True:
            message = self._pubsub.get_message(timeout=10)
            assert message is not None, "no message from Redis within 10 s"
            if message["type"] in kinds:
                return message
