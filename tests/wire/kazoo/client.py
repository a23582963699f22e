"""A Blackhole client of the pure conversation: sends frames and checks replies."""

import itertools
from typing import Any

import orjson

from shared.model.api_keys import Principal, Scope
from shared.model.events import Notification
from shared.wire.kazoo.blackhole import Authenticate, Authorize, Conversation, Reply, SaveSession

OWN = "a" * 32
CHILD = "c" * 32
STRANGER = "f" * 32
TOKEN = "token"
MASTER_TOKEN = "master-token"
PRINCIPALS = {
    TOKEN: Principal("k" * 32, OWN, frozenset({Scope.RECEIVE})),
    MASTER_TOKEN: Principal("m" * 32, OWN, frozenset({Scope.RECEIVE}), master=True),
    "publisher": Principal("p" * 32, OWN, frozenset({Scope.PUBLISH})),
}
MAY_LISTEN = {OWN, CHILD}


class Client:
    """Executes a conversation's effects as an edge does; `saved` are the sessions written."""

    def __init__(self, *, principal: Principal | None = None) -> None:
        numbers = itertools.count()
        self.conversation = Conversation(
            "session-1", now_s=0, principal=principal, new_request_id=lambda: f"generated-{next(numbers)}"
        )
        self.saved: list[SaveSession] = []
        self.now_s = 0.0

    def send(self, frame: str | bytes, *, store_fails: bool = False) -> bytes:
        """The reply to a frame."""
        effect = self.conversation.receive(frame, now_s=self.now_s)
        while True:
            match effect:
                case Reply(text):
                    return text
                case Authenticate(token):
                    effect = self.conversation.resume(PRINCIPALS.get(token))
                case Authorize(_, account_id):
                    effect = self.conversation.resume(account_id in MAY_LISTEN)
                case SaveSession() if store_fails:
                    effect = self.conversation.fail("temporarily unavailable, try again")
                case SaveSession():
                    self.saved.append(effect)
                    effect = self.conversation.resume(None)

    def request(self, action: str, data: Any = None, *, token: str = TOKEN, **more: Any) -> dict[str, Any]:
        """The one reply to a frame of this form."""
        frame: dict[str, Any] = {"action": action, "request_id": "r", "auth_token": token, **more}
        if data is not None:
            frame["data"] = data
        reply: dict[str, Any] = orjson.loads(self.send(orjson.dumps(frame)))
        assert list(reply) == ["action", "request_id", "status", "data"]
        assert reply["action"] == "reply"
        return reply

    def done(self, action: str, data: Any = None, **more: Any) -> Any:
        """The data of a success reply."""
        reply = self.request(action, data, **more)
        assert reply["status"] == "success", reply
        return reply["data"]

    def refused(self, action: str, data: Any = None, **more: Any) -> list[str]:
        """The errors of an error reply."""
        reply = self.request(action, data, **more)
        assert reply["status"] == "error", reply
        assert list(reply["data"]) == ["errors"]
        errors: list[str] = reply["data"]["errors"]
        return errors

    def subscribe(self, binding: str, *, account: str | None = None, **more: Any) -> Any:
        at = {} if account is None else {"account_id": account}
        return self.done("subscribe", {"binding": binding, **at}, **more)

    def event_frames(self, topic: str, data: Any = None, **more: Any) -> list[dict[str, Any]]:
        """The frames for an event."""
        now_ms = 1_772_000_000_000  # in February 2026
        notification = Notification("1-0", "e", topic, orjson.dumps(data), **{"account": OWN, **more})
        return [orjson.loads(frame) for frame in self.conversation.event_frames(notification, now_ms=now_ms)]
