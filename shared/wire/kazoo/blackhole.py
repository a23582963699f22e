"""Blackhole's conversation with one client, without the socket (sections 3 to 5).

The socket hands in what the client sends, and executes the effect that comes back until it is the reply:

    effect = conversation.receive(frame, now_s=...)
    while not isinstance(effect, Reply):
        effect = conversation.resume(the result of executing it)

One frame at a time: the socket hands in the next after the reply to the last. `fail` ends the current frame
when an effect cannot be executed. `event_frames` may be called at any time. Nothing that a client sends
raises. The socket closes idle clients.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from shared.model.api_keys import Principal, Scope, is_id, new_id
from shared.model.bindings import Topic
from shared.model.events import Notification
from shared.model.sessions import EVERY_ACCOUNT, SessionBinding
from shared.wire import exact_json
from shared.wire.kazoo.bindings import Binding, Refused, parse_binding
from shared.wire.kazoo.events import frames

BURST = 100
PER_SECOND = 10
MAX_SUBSCRIPTIONS = 1024
MAX_NAME = 255
MAX_METADATA_BYTES = 4096
_MAX_ERRORS = 16
_TOO_MANY = f"too many subscriptions : {MAX_SUBSCRIPTIONS} at most"


@dataclass(frozen=True, slots=True)
class Reply:
    """A text frame to send."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Find the principal of a token or secret."""

    token: str


@dataclass(frozen=True, slots=True)
class Authorize:
    """Decide whether the principal may receive the events of this account."""

    principal: Principal
    account_id: str


@dataclass(frozen=True, slots=True)
class SaveSession:
    """Write the session as it is listed from now on. The client gets its reply after that."""

    principal: Principal
    bindings: tuple[SessionBinding, ...] = ()
    name: str = ""
    metadata: bytes = b""


Effect: TypeAlias = Reply | Authenticate | Authorize | SaveSession
_Result: TypeAlias = Principal | bool | None
_Work: TypeAlias = Generator[Effect, _Result, dict[str, Any]]
_Bindings: TypeAlias = dict[tuple[str, str], SessionBinding]
"""By account and the client's spelling."""


class _FrameError(Exception):
    """The reply to the frame is an error with these messages."""

    def __init__(self, *messages: str) -> None:
        super().__init__(*messages)
        self.messages = messages


@dataclass(frozen=True, slots=True)
class _Frame:
    """A parsed frame."""

    action: str
    token: str
    message: dict[str, Any]

    @property
    def data(self) -> Any:
        return self.message.get("data")

    def value(self, name: str) -> Any:
        """A value that clients send beside `data` or in it."""
        inside = self.data.get(name) if isinstance(self.data, dict) else None
        return self.message[name] if self.message.get(name) is not None else inside


class Conversation:
    """One client's conversation. `principal` is set if the handshake authenticated it."""

    def __init__(
        self,
        session_id: str,
        *,
        now_s: float,
        principal: Principal | None = None,
        new_request_id: Callable[[], str] = new_id,
    ) -> None:
        self.session_id = session_id
        self._principal = principal
        self._new_request_id = new_request_id
        self._bucket = _Bucket(now_s)
        # The last saved state; None before the first, and while a failed write may or may not have been done.
        self._saved: SaveSession | None = None
        self._bindings: _Bindings = {}
        self._work: _Work | None = None
        self._request_id = ""

    def receive(self, frame: str | bytes, *, now_s: float) -> Effect:
        """Begins a text frame. Returns its first effect; the last one is its reply."""
        assert self._work is None, "the previous frame has no reply yet"
        message = _parsed(frame)
        fields = message if message is not None else {}
        self._request_id = _scalar(fields.get("request_id")) or self._new_request_id()
        if not self._bucket.take(now_s):
            return self._error(f"rate limiting threshold hit for {self.session_id}!")
        if message is None:
            return self._error("invalid JSON")
        action, token = _text(fields.get("action")) or "noop", _text(fields.get("auth_token"))
        self._work = self._handle(_Frame(action, token, fields))
        return self.resume(None)

    def resume(self, result: _Result) -> Effect:
        """Continues the frame with the result of its effect.

        Of Authenticate: the principal, None for an invalid token. Of Authorize: whether it may receive them.
        """
        assert self._work is not None, "no frame is in progress"
        try:
            return self._work.send(result)
        except StopIteration as end:
            reply = self._reply("success", end.value)
        except _FrameError as error:
            reply = self._error(*error.messages)
        self._work = None
        return reply

    def fail(self, message: str) -> Reply:
        """Ends the frame with this error: its effect cannot be executed now."""
        assert self._work is not None, "no frame is in progress"
        self._work.close()
        # A write may or may not have been done: the next frame that succeeds writes all.
        self._work, self._saved = None, None
        return self._error(message)

    def event_frames(self, notification: Notification, *, now_ms: int) -> list[bytes]:
        """The frames for an event, one for each binding that matches it."""
        return frames(notification, self._bindings.values(), now_ms=now_ms)

    def _handle(self, frame: _Frame) -> _Work:
        """Yields the frame's effects in Kazoo's order. An error leaves the session unchanged."""
        principal = self._principal or (yield from _authenticate(frame))
        if Scope.RECEIVE not in principal.scopes:
            raise _FrameError("the API key lacks the scope receive")
        if frame.action == "subscribe":
            bindings, data = yield from self._subscribe(frame, principal)
        elif frame.action == "unsubscribe":
            bindings, data = self._unsubscribe(frame, principal)
        else:
            bindings, data = self._bindings, {"response": "pong"} if frame.action == "ping" else {}
        state = SaveSession(principal, tuple(bindings.values()), name=_name(frame), metadata=_metadata(frame))
        if state != self._saved:
            # Events may arrive before the write is confirmed: the new bindings must match already.
            before, self._bindings = self._bindings, bindings
            try:
                yield state
            except GeneratorExit:
                self._bindings = before
                raise
        self._principal, self._saved = principal, state
        return data

    def _subscribe(
        self, frame: _Frame, principal: Principal
    ) -> Generator[Effect, _Result, tuple[_Bindings, dict[str, Any]]]:
        account_id, texts = _account_and_bindings(frame, principal)
        parsed = _parse_bindings(texts)
        yield from _authorize(principal, account_id)
        if any(each is not None and each.of_every_conference for each in parsed) and not principal.master:
            raise _FrameError("unauthorized wildcard for conference id")
        bindings = dict(self._bindings)
        for binding in _known(parsed):
            added = SessionBinding(account_id, binding.requested, Topic(binding.pattern))
            bindings.setdefault((account_id, binding.requested), added)
        if len(bindings) > MAX_SUBSCRIPTIONS:
            raise _FrameError(_TOO_MANY)
        requested = _spellings(bindings)
        return bindings, {"subscribed": requested, "subscriptions": requested}

    def _unsubscribe(self, frame: _Frame, principal: Principal) -> tuple[_Bindings, dict[str, Any]]:
        if frame.data is None:
            every = _spellings(self._bindings)
            return {}, {"unsubscribed": every, "subscribed": [], "subscriptions": []}
        account_id, texts = _account_and_bindings(frame, principal)
        removed = list(dict.fromkeys(binding.requested for binding in _known(_parse_bindings(texts))))
        keys = {(account_id, requested) for requested in removed}
        bindings = {key: binding for key, binding in self._bindings.items() if key not in keys}
        left = _spellings(bindings)
        return bindings, {"unsubscribed": removed, "subscribed": left, "subscriptions": left}

    def _error(self, *messages: str) -> Reply:
        return self._reply("error", {"errors": list(messages)})

    def _reply(self, status: str, data: dict[str, Any]) -> Reply:
        body = {"action": "reply", "request_id": self._request_id, "status": status, "data": data}
        return Reply(orjson.dumps(body))


class _Bucket:
    """A token bucket, refilled at every whole second."""

    def __init__(self, now_s: float) -> None:
        self._tokens = BURST
        self._filled_s = now_s

    def take(self, now_s: float) -> bool:
        passed_s = max(0, int(now_s - self._filled_s))
        self._filled_s += passed_s
        self._tokens = min(BURST, self._tokens + passed_s * PER_SECOND)
        if self._tokens == 0:
            return False
        self._tokens -= 1
        return True


def _authenticate(frame: _Frame) -> Generator[Effect, _Result, Principal]:
    if not frame.token:
        raise _FrameError("authentication token required")
    principal = yield Authenticate(frame.token)
    if not isinstance(principal, Principal):
        raise _FrameError(f"failed to authenticate token {frame.token}")
    return principal


def _authorize(principal: Principal, account_id: str) -> Generator[Effect, _Result, None]:
    if account_id == EVERY_ACCOUNT:
        if not principal.master:
            raise _FrameError("unauthorized wildcard account id")
    elif account_id != principal.account_id:
        may_listen = is_id(account_id) and (yield Authorize(principal, account_id))
        if may_listen is not True:
            raise _FrameError("unauthorized account id")


def _account_and_bindings(frame: _Frame, principal: Principal) -> tuple[str, list[str]]:
    """The account and the bindings in a frame; by default the principal's own account."""
    data = frame.data
    if not isinstance(data, dict) or not data:
        raise _FrameError("missing required keys in data object")
    given = data.get("account_id")
    account_id = principal.account_id if given is None else _text(given)
    # `binding` wins when both are there.
    several = data.get("bindings") if data.get("binding") is None else None
    posted = several if isinstance(several, list) else [data.get("binding")]
    if len(posted) > MAX_SUBSCRIPTIONS:
        raise _FrameError(_TOO_MANY)
    texts = [text for text in map(_text, posted) if text]
    present = {"account_id": bool(account_id), "binding": bool(posted) and len(texts) == len(posted)}
    if not all(present.values()):
        missing = [name for name, is_present in present.items() if not is_present]
        raise _FrameError(f"missing required keys : {', '.join(missing)}")
    return account_id, texts


def _parse_bindings(texts: Iterable[str]) -> list[Binding | None]:
    """The binding of each text, None for an unknown module. Raises _FrameError for all that are malformed."""
    parsed: list[Binding | None] = []
    errors: dict[str, None] = {}
    for text in texts:
        try:
            parsed.append(parse_binding(text))
        except Refused as error:
            errors[str(error)] = None
    if errors:
        raise _FrameError(*list(errors)[:_MAX_ERRORS])
    return parsed


def _known(parsed: list[Binding | None]) -> list[Binding]:
    known = [binding for binding in parsed if binding is not None]
    if len(known) < len(parsed):
        raise _FrameError("no available subscriptions to requested binding")
    return known


def _spellings(bindings: _Bindings) -> list[str]:
    return list(dict.fromkeys(requested for _, requested in bindings))


def _name(frame: _Frame) -> str:
    name = _scalar(frame.value("name"))
    if len(name) > MAX_NAME:
        raise _FrameError(f"name is too long : {MAX_NAME} characters at most")
    return name


def _metadata(frame: _Frame) -> bytes:
    value = frame.value("metadata")
    if value is None:
        return b""
    try:
        metadata = exact_json.dumps(value)
    except TypeError:
        raise _FrameError("metadata is nested too deeply") from None
    if len(metadata) > MAX_METADATA_BYTES:
        raise _FrameError(f"metadata is too large : {MAX_METADATA_BYTES} bytes at most")
    return metadata


def _parsed(frame: str | bytes) -> dict[str, Any] | None:
    try:
        message = exact_json.loads(frame if isinstance(frame, bytes) else frame.encode())
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
    return message if isinstance(message, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _scalar(value: Any) -> str:
    """A string, or a number or boolean as JSON writes it; else an empty string."""
    return value if isinstance(value, str) else exact_json.number_text(value) or ""
