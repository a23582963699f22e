"""The versions of routing tables, read once for all publishes that travel in one pipeline, by callback."""

from collections.abc import Callable
from typing import Any

from shared.redis.connection import Argument
from shared.redis.pipeline import RedisCommands
from shared.store import keyspace


class Read:
    """One command that reads. `reply` is its reply, or an exception, once `has_reply` is set."""

    __slots__ = ("_command", "_waiting", "has_reply", "reply")

    def __init__(self, redis: RedisCommands, *arguments: Argument) -> None:
        self.has_reply = False
        self.reply: Any = None
        self._waiting: list[Callable[[], None]] | None = None
        self._command = redis.read_then(self._on_reply, *arguments)

    @property
    def is_sent(self) -> bool:
        """Is it too late to share it? What it reads may be older than a publish that begins now."""
        return self._command is None or self._command.is_closed

    def then(self, go_on: Callable[[], None]) -> None:
        """Calls back when it has its reply."""
        self._waiting = [*(self._waiting or ()), go_on]

    def _on_reply(self, reply: Any) -> None:
        self.has_reply, self.reply = True, reply
        waiting, self._waiting = self._waiting, None
        for go_on in waiting or ():
            go_on()


class SharedVersions(Read):
    """Reads that of an account's table; `every` reads that of the table of all accounts, for all of them."""

    __slots__ = ("_of_tables", "every")

    def __init__(self, redis: RedisCommands, account_id: str, *, every: Read) -> None:
        self.every = every
        self._of_tables: tuple[str, str] | None = None
        super().__init__(redis, "HGET", keyspace.routing(account_id), "version")

    def when_read(self, go_on: Callable[[], None]) -> None:
        """Calls back once both are read. Behind an append of the same pipeline they are."""
        if not self.has_reply:
            self.then(lambda: self.when_read(go_on))
        elif not self.every.has_reply:
            self.every.then(go_on)
        else:
            go_on()

    @property
    def error(self) -> Exception | None:
        """Why they could not be read, once they are."""
        if self._of_tables is None:
            for reply in (self.reply, self.every.reply):
                if isinstance(reply, Exception):
                    return reply
            self._of_tables = (self.reply or b"").decode(), (self.every.reply[0] or b"").decode()
        return None

    @property
    def of_tables(self) -> tuple[str, str]:
        """Without an error. '' is the version of an empty table."""
        if self._of_tables is None and (error := self.error) is not None:
            raise error
        assert self._of_tables is not None
        return self._of_tables

    @property
    def of_credentials_and_quotas(self) -> tuple[bytes, bytes]:
        """Without an error. The first changes after each revocation and each new secret of an API key, the
        other with each change of an account's quotas."""
        _, credentials, quotas = self.every.reply
        return credentials or b"", quotas or b""
