"""What each Redis user has executed: MONITOR's lines with the users of their connections.

Commands inside a script have no connection. MONITOR shows them right behind the script's call.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

# MONITOR shows a line after its connection was opened; a short connection must not be gone by then.
_LISTING_S = 0.05
_LINE = re.compile(rb"\d+\.\d+ \[\d+ ([^\]]+)\] (.*)\r")
_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_OF_SCRIPTS = b"lua"
SCRIPT_CALLS = ("eval", "evalsha")
# The others have their keys in other places, or none.
_ALL_ARGUMENTS_ARE_KEYS = ("del", "exists", "rename", "unlink", "watch")


@dataclass(frozen=True, slots=True)
class Executed:
    """A command, by the name that an ACL gives it, with the keys or channels that it named.

    `script`: the hash that an EVALSHA named.
    """

    command: str
    names: tuple[str, ...] = ()
    script: str = ""


@dataclass
class Monitor:
    """Records a server on 127.0.0.1 while entered, across restarts of the server."""

    port: int
    file: Path
    _users: dict[bytes, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Does nothing while it records."""
        if self._threads:
            return
        for work in (self._record, self._list_connections):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def executed(self) -> dict[str, set[Executed]]:
        """By user. Lines of a connection that was gone before its user was asked for are left out."""
        found: dict[str, set[Executed]] = {}
        user: str | None = None
        for source, arguments in self._lines():
            if source != _OF_SCRIPTS:
                user = self._users.get(source)
            if user is not None:
                found.setdefault(user, set()).add(_executed(arguments))
        return found

    def used(self) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[str]]]:
        """By user: commands, each with the shape of a name that it had or ''; and hashes of scripts."""
        commands, scripts = {}, {}
        for user, some in self.executed().items():
            shapes = {(each.command, shape(name)) for each in some for name in each.names or ("",)}
            commands[user] = sorted(shapes)
            scripts[user] = sorted({each.script for each in some if each.script})
        return commands, scripts

    def _lines(self) -> Iterator[tuple[bytes, list[str]]]:
        if not self.file.exists():
            return
        with self.file.open("rb") as lines:
            for line in lines:
                if match := _LINE.search(line):
                    arguments = [part.decode("latin-1") for part in _ARGUMENT.findall(match[2])]
                    yield match[1], arguments

    def _record(self) -> None:
        with self.file.open("ab") as out:
            while not self._stop.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                        connection.sendall(b"MONITOR\r\n")
                        while not self._stop.is_set():
                            with contextlib.suppress(TimeoutError):
                                data = connection.recv(1 << 20)
                                if not data:
                                    break
                                out.write(data)
                except OSError:
                    self._stop.wait(_LISTING_S)
                # The last line of a killed server is cut.
                out.write(b"\r\n")

    def _list_connections(self) -> None:
        while not self._stop.wait(_LISTING_S):
            with (
                contextlib.suppress(redis.RedisError),
                redis.Redis(port=self.port, socket_timeout=10) as direct,
            ):
                while not self._stop.wait(_LISTING_S):
                    connections: list[dict[str, Any]] = direct.client_list()
                    self._users.update((each["addr"].encode(), each["user"]) for each in connections)


def _executed(arguments: list[str]) -> Executed:
    name, *rest = arguments
    name = name.lower()
    if name in SCRIPT_CALLS:
        sha = rest[0] if name == "evalsha" else ""
        return Executed(name, tuple(rest[2 : 2 + int(rest[1])]), sha)
    if name in ("client", "cluster", "memory", "sentinel"):
        return Executed(f"{name}|{rest[0].lower()}", tuple(rest[1:2]) if name == "memory" else ())
    if name in _ALL_ARGUMENTS_ARE_KEYS or name == "subscribe":
        return Executed(name, tuple(rest))
    if name in ("scan", "select", "auth"):
        return Executed(name)
    return Executed(name, tuple(rest[:1]))


_IDS = re.compile(r"\{(?:[0-9a-f]{32}|[^{}]*/[^{}]*)\}")
_HASHES = re.compile(r":(receipt|running|idempotency|pushed|rates|heartbeat):.*")


def shape(name: str) -> str:
    """A name with stars in place of its ids and hashes."""
    name = _IDS.sub("{*}", name)
    name = re.sub(r"^\{due:\d\}", "{due:*}", name)
    name = re.sub(r"^wakeup:.*/.*", "wakeup:*", name)
    name = re.sub(r"^arq:([a-z-]+:).*", r"arq:\1*", name)
    return _HASHES.sub(r":\1:*", name)
