"""uvicorn's HTTP protocol, with our rules for the head of a request (docs/protocols/http.md).

It reads a header's value without the blanks around it, and a header that is a list from all its lines.
"""

from typing import Any

from shared.runtime.http.request_head import (
    SINGLE,
    check_coding,
    check_expectation,
    check_host,
    check_version,
    given_twice,
    has_body,
    members,
    origin_form,
)
from shared.runtime.http.turns import TurnsProtocol

_BLANKS = b" \t"


class HeadsProtocol(TurnsProtocol):
    """`HttpProtocol` begins a request here; what `_check_head` refuses is never served."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._version = ""
        self._host: bytes | None = None
        self._hosts = 0
        self._coding: bytes | None = None
        self._codings = 0
        self._expectations: list[bytes] | None = None
        self._singles: list[bytes] = []
        self._twice: bytes | None = None
        # Clients send the same Host, and often the same URL, with every request of a connection.
        self._valid_host: bytes | None = None
        self._valid_target = (b"", b"")
        # Whether the head asks for a WebSocket, once that is known.
        self._upgrades: bool | None = None

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._host, self._hosts, self._coding, self._codings = None, 0, None, 0
        self._expectations = self._twice = self._upgrades = None
        self._singles = []
        self._is_in_head = True
        self._callbacks += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            # A trailer would be taken for a header, which no proxy has checked.
            return
        name = name.lower()
        # The parser has removed the blanks before it, and leaves those behind it.
        value = value.rstrip(_BLANKS)
        if name == b"host":
            self._host = value
            self._hosts += 1
        elif name in SINGLE:
            if name in self._singles:
                self._twice = name
            self._singles.append(name)
        elif name == b"transfer-encoding":
            self._coding = value
            self._codings += 1
        elif name == b"expect":
            self._expectations = [*(self._expectations or ()), value]
        self.headers.append((name, value))

    def _check_head(self) -> None:
        """Raises RefusedHead. Called for every request, so it never looks through the headers."""
        self._version = version = self.parser.get_http_version()
        if version != "1.1":
            check_version(version)
        if self._hosts != 1 or self._host != self._valid_host:
            check_host(version, self._host, count=self._hosts)
            self._valid_host = self._host
        if self._coding is not None:
            check_coding(version, self._coding, count=self._codings)
        if self._twice is not None:
            raise given_twice(self._twice)
        target = (self.parser.get_method(), self.url)
        if target != self._valid_target:
            self.url = origin_form(*target)
            self._valid_target = (target[0], self.url)
        if self._expectations is not None and version != "1.0":
            self.expect_100_continue = check_expectation(self._expectations)

    def _make_scope(self) -> None:
        """uvicorn's, of the request whose head has been read."""
        url, headers, expects_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_100_continue
        self.headers.extend(headers)

    def _ignores_upgrade(self) -> bool:
        if not self.parser.should_upgrade() or self._upgrades:
            return False
        offers = any(name == b"upgrade" for name, _ in self.headers)
        return offers and not self._should_upgrade()

    def _should_upgrade(self) -> bool:
        if self._upgrades is None:
            upgradable = self.parser.get_method() == b"GET" and self._version == "1.1"
            self._upgrades = upgradable and not has_body(self.headers) and super()._should_upgrade()
        return self._upgrades

    def _get_upgrade(self) -> bytes | None:
        if b"upgrade" not in self._list_in(b"connection"):
            return None
        offered = self._list_in(b"upgrade")
        return b"websocket" if b"websocket" in offered else next(iter(offered), None)

    def _list_in(self, name: bytes) -> list[bytes]:
        return [member.lower() for member in members(self.headers, name)]
