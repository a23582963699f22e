"""Blackhole's conversation with one client, without the socket (sections 3 to 5).

Whoever holds the socket drives it: hands in what the client sends, and carries out what comes back.

    todo = conversation.text(frame, now_s=...)
    while todo:
        match todo.pop():
            case Reply(text): send it
            case Authenticate(token): todo = conversation.authenticated(the principal, or None)
            case MayListen(principal, account_id): todo = conversation.judged(may it?)
            case Changed() as session: write it down, then todo = conversation.changed()

One frame at a time: the next is handed in when the last has had its reply. `failed` ends the frame in work
when its question cannot be answered. At any time `events` are the frames for an event that is due. Nothing
that a client sends raises. That one is silent for too long is noticed by whoever holds its socket.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from shared.model.api_keys import Principal, Scope, is_id, new_id
from shared.model.bindings import Topic
from shared.model.events import Notification
from shared.model.sessions import EVERY_ACCOUNT, Wanted
from shared.wire.kazoo import events
from shared.wire.kazoo.bindings import Binding, Refused, binding_of

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
    """ChannelRef token or secret is this?"""

    token: str


@dataclass(frozen=True, slots=True)
class MayListen:
    """May the principal listen to the events of this account?"""

    principal: Principal
    account_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What others are to see of the session from now on. The client is answered when they do."""

    principal: Principal
    wanted: tuple[Wanted, ...] = ()
    name: str = ""
    metadata: bytes = b""

    @property
    def bindings(self) -> tuple[str, ...]:
        """The client's own spellings, each once."""
        return tuple(dict.fromkeys(one.requested for one in self.wanted))


Effect: TypeAlias = Reply | Authenticate | MayListen | Changed
_Answer: TypeAlias = Principal | bool | None
_Work: TypeAlias = Generator[Effect, _Answer, dict[str, Any]]


class _Wrong(Exception):
    """The frame is answered with an error of these messages."""

    def __init__(self, *messages: str) -> None:
        super().__init__(*messages)
        self.messages = messages


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a client asked, as far as it could be read."""

    request_id: str
    action: str
    token: str
    message: dict[str, Any]

    @property
    def data(self) -> Any:
        return self.message.get("data")

    def said(self, name: str) -> Any:
        """A value that clients send beside `data` or in it."""
        inside = self.data.get(name) if isinstance(self.data, dict) else None
        return self.message[name] if self.message.get(name) is not None else inside


class Conversation:
    """One client's. `principal` is whom the handshake has proven already, if it did."""

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
        self._announced = False
        # What others were told last; None when nothing, or when nobody knows whether they were.
        self._told: Changed | None = None
        self._wanted: dict[tuple[str, str], Wanted] = {}
        self._work: _Work | None = None
        self._request_id = ""

    @property
    def listed(self) -> bool:
        """Have others been told of the session, or may they have been?"""
        return self._announced

    @property
    def busy(self) -> bool:
        """Is a frame in work, waiting for an answer from outside?"""
        return self._work is not None

    def text(self, frame: str | bytes, *, now_s: float) -> list[Effect]:
        """A text frame; each gets one reply, at once or when its questions are answered."""
        assert self._work is None, "the frame before is still in work"
        message = _parsed(frame)
        asked = message if message is not None else {}
        self._request_id = _scalar(asked.get("request_id")) or self._new_request_id()
        if not self._bucket.takes_one(now_s):
            return [self._error(f"rate limiting threshold hit for {self.session_id}!")]
        if message is None:
            return [self._error("invalid JSON")]
        self._work = self._answers(
            _Frame(
                request_id=self._request_id,
                action=_text(asked.get("action")) or "noop",
                token=_text(asked.get("auth_token")),
                message=asked,
            )
        )
        return self._resume(None)

    def authenticated(self, principal: Principal | None) -> list[Effect]:
        """ChannelRef token it is; None for nobody's."""
        return self._resume(principal)

    def judged(self, may_listen: bool) -> list[Effect]:
        return self._resume(may_listen)

    def changed(self) -> list[Effect]:
        """What changed is written down."""
        return self._resume(None)

    def failed(self) -> list[Effect]:
        """The question of the frame in work cannot be answered now."""
        assert self._work is not None, "no frame is in work"
        self._work.close()
        # A write may have been done or not: the next frame that succeeds writes all.
        self._work, self._told = None, None
        return [self._error("temporarily unavailable, try again")]

    def events(self, notification: Notification, *, now_ms: int) -> list[bytes]:
        """The frames for an event that is due, one for each binding that asks for it."""
        return events.frames(notification, self._wanted.values(), now_ms=now_ms)

    def _resume(self, answer: _Answer) -> list[Effect]:
        assert self._work is not None, "no frame is in work"
        try:
            return [self._work.send(answer)]
        except StopIteration as end:
            reply = self._reply("success", end.value)
        except _Wrong as wrong:
            reply = self._error(*wrong.messages)
        self._work = None
        return [reply]

    def _answers(self, frame: _Frame) -> _Work:
        """All that is asked of outside on a frame's way to its reply, in Kazoo's order: the first that fails
        answers, and nothing of the frame has happened."""
        principal = self._principal or (yield from _authenticate(frame))
        if Scope.RECEIVE not in principal.scopes:
            raise _Wrong("the API key lacks the scope receive")
        if frame.action == "subscribe":
            wanted, data = yield from self._subscribe(frame, principal)
        elif frame.action == "unsubscribe":
            wanted, data = self._unsubscribe(frame, principal)
        else:
            wanted, data = self._wanted, {"response": "pong"} if frame.action == "ping" else {}
        state = Changed(principal, tuple(wanted.values()), name=_name(frame), metadata=_metadata(frame))
        if state != self._told:
            # Events may be due before all is written: what was asked for counts from now on.
            before, self._wanted, self._announced = self._wanted, wanted, True
            try:
                yield state
            except GeneratorExit:
                self._wanted = before
                raise
        self._principal, self._told = principal, state
        return data

    def _subscribe(
        self, frame: _Frame, principal: Principal
    ) -> Generator[Effect, _Answer, tuple[dict[tuple[str, str], Wanted], dict[str, Any]]]:
        account_id, texts = _asked(frame, principal)
        found = _in_order(texts)
        yield from _authorized(principal, account_id)
        if any(each is not None and each.of_every_conference for each in found) and not principal.master:
            raise _Wrong("unauthorized wildcard for conference id")
        wanted = dict(self._wanted)
        for binding in _known(found):
            one = Wanted(account_id, binding.requested, Topic(binding.pattern))
            wanted.setdefault((account_id, binding.requested), one)
        if len(wanted) > MAX_SUBSCRIPTIONS:
            raise _Wrong(_TOO_MANY)
        told = _spellings(wanted.values())
        return wanted, {"subscribed": told, "subscriptions": told}

    def _unsubscribe(
        self, frame: _Frame, principal: Principal
    ) -> tuple[dict[tuple[str, str], Wanted], dict[str, Any]]:
        if frame.data is None:
            every = _spellings(self._wanted.values())
            return {}, {"unsubscribed": every, "subscribed": [], "subscriptions": []}
        account_id, texts = _asked(frame, principal)
        gone = list(dict.fromkeys(binding.requested for binding in _known(_in_order(texts))))
        dropped = {(account_id, requested) for requested in gone}
        wanted = {key: one for key, one in self._wanted.items() if key not in dropped}
        left = _spellings(wanted.values())
        return wanted, {"unsubscribed": gone, "subscribed": left, "subscriptions": left}

    def _error(self, *messages: str) -> Reply:
        return self._reply("error", {"errors": list(messages)})

    def _reply(self, status: str, data: dict[str, Any]) -> Reply:
        body = {"action": "reply", "request_id": self._request_id, "status": status, "data": data}
        return Reply(orjson.dumps(body))


class _Bucket:
    """What a client may send at once, and how fast it may go on: filled up at every whole second."""

    def __init__(self, now_s: float) -> None:
        self._tokens = BURST
        self._filled_s = now_s

    def takes_one(self, now_s: float) -> bool:
        passed_s = max(0, int(now_s - self._filled_s))
        self._filled_s += passed_s
        self._tokens = min(BURST, self._tokens + passed_s * PER_SECOND)
        if self._tokens == 0:
            return False
        self._tokens -= 1
        return True


def _authenticate(frame: _Frame) -> Generator[Effect, _Answer, Principal]:
    if not frame.token:
        raise _Wrong("authentication token required")
    principal = yield Authenticate(frame.token)
    if not isinstance(principal, Principal):
        raise _Wrong(f"failed to authenticate token {frame.token}")
    return principal


def _authorized(principal: Principal, account_id: str) -> Generator[Effect, _Answer, None]:
    if account_id == EVERY_ACCOUNT:
        if not principal.master:
            raise _Wrong("unauthorized wildcard account id")
    elif account_id != principal.account_id:
        may_listen = is_id(account_id) and (yield MayListen(principal, account_id))
        if may_listen is not True:
            raise _Wrong("unauthorized account id")


def _asked(frame: _Frame, principal: Principal) -> tuple[str, list[str]]:
    """The account and the bindings that a frame names; the principal's own account when it names none."""
    data = frame.data
    if not isinstance(data, dict) or not data:
        raise _Wrong("missing required keys in data object")
    given = data.get("account_id")
    account_id = principal.account_id if given is None else _text(given)
    # `binding` is what counts when both are there.
    several = data.get("bindings") if data.get("binding") is None else None
    posted = several if isinstance(several, list) else [data.get("binding")]
    if len(posted) > MAX_SUBSCRIPTIONS:
        raise _Wrong(_TOO_MANY)
    texts = [text for text in map(_text, posted) if text]
    is_there = {"account_id": bool(account_id), "binding": bool(posted) and len(texts) == len(posted)}
    if not all(is_there.values()):
        missing = [name for name, there in is_there.items() if not there]
        raise _Wrong(f"missing required keys : {', '.join(missing)}")
    return account_id, texts


def _in_order(texts: Iterable[str]) -> list[Binding | None]:
    """What each of these asks for, where a module has it. One that is not in order refuses all."""
    found: list[Binding | None] = []
    wrong: dict[str, None] = {}
    for text in texts:
        try:
            found.append(binding_of(text))
        except Refused as error:
            wrong[str(error)] = None
    if wrong:
        raise _Wrong(*list(wrong)[:_MAX_ERRORS])
    return found


def _known(found: list[Binding | None]) -> list[Binding]:
    known = [binding for binding in found if binding is not None]
    if len(known) < len(found):
        raise _Wrong("no available subscriptions to requested binding")
    return known


def _spellings(wanted: Iterable[Wanted]) -> list[str]:
    return list(dict.fromkeys(one.requested for one in wanted))


def _name(frame: _Frame) -> str:
    name = _scalar(frame.said("name"))
    if len(name) > MAX_NAME:
        raise _Wrong(f"name is too long : {MAX_NAME} characters at most")
    return name


def _metadata(frame: _Frame) -> bytes:
    value = frame.said("metadata")
    if value is None:
        return b""
    try:
        metadata = orjson.dumps(value)
    except TypeError:
        raise _Wrong("metadata is nested too deeply") from None
    if len(metadata) > MAX_METADATA_BYTES:
        raise _Wrong(f"metadata is too large : {MAX_METADATA_BYTES} bytes at most")
    return metadata


def _parsed(frame: str | bytes) -> dict[str, Any] | None:
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _scalar(value: Any) -> str:
    """A string, or what is as good as one: a number or truth value as JSON writes it."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, bool | int | float) else ""
