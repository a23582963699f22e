"""Listening in on every wakeup, whoever sends it: from inside a script, too."""

from typing import Any

from shared.store import keyspace

_EVERY = keyspace.wakeup("*")
_PREFIX = _EVERY.removesuffix("*")


class Overheard:
    """Hears the wakeups for all instances, from now on. `direct` is a plain blocking client."""

    def __init__(self, direct: Any) -> None:
        self._pubsub = direct.pubsub()
        self._pubsub.psubscribe(_EVERY)
        self._next("psubscribe")

    def all(self) -> list[tuple[str, bytes]]:
        """What was published since the last time, each with its instance.

        Redis writes to a connection in order: what it had published by now stands before the pong.
        """
        self._pubsub.ping()
        heard: list[tuple[str, bytes]] = []
        while (message := self._next("pmessage", "pong"))["type"] == "pmessage":
            heard.append((message["channel"].decode().removeprefix(_PREFIX), message["data"]))
        return heard

    def close(self) -> None:
        self._pubsub.close()

    def _next(self, *kinds: str) -> Any:
        while True:
            message = self._pubsub.get_message(timeout=10)
            assert message is not None, "Redis says nothing"
            if message["type"] in kinds:
                return message
