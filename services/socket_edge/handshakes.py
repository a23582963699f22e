"""What the handshakes of all dialects have in common: how they are refused, and one per secret at a time."""

import contextlib
import logging
from collections.abc import Awaitable, Iterator, Sequence
from typing import TypeVar

from starlette.types import Message, Scope, Send

from shared import telemetry
from shared.model.api_keys import hash_of, id_in
from shared.model.errors import Invalid, StoreUnavailable
from shared.runtime.http.responses import (
    REQUEST_ID,
    Problem,
    internal_error,
    refuse_handshake,
    request_id_of,
    unavailable,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def admit(scope: Scope, send: Send, entry: Awaitable[T]) -> T | None:
    """What `entry` gives; None when it failed, and the client was sent an HTTP response that says why."""
    try:
        return await entry
    except StoreUnavailable:
        problem, outcome = unavailable(), {"outcome": "unavailable"}
    except Invalid as error:
        problem = Problem(400, error.message, fields=error.fields, kind="validation_error")
        outcome = {"outcome": "refused"}
    except Problem as error:
        problem, outcome = error, {"outcome": "refused"}
    except Exception:
        logger.exception("handshake.failed", extra={"facts": {"request_id": request_id_of(scope)}})
        problem, outcome = internal_error(), {"outcome": "failed"}
    telemetry.handshakes.add(1, outcome)
    await refuse_handshake(scope, send, problem)
    return None


def acceptance(
    scope: Scope, *, subprotocol: str | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> Message:
    headers = [(REQUEST_ID.encode(), request_id_of(scope).encode()), *headers]
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}


class Handshakes:
    """Lets one handshake with each secret proceed at a time (docs/protocols/pelion.md, section 4).

    By the secret and not by the id in it: more people know the id, and could keep the key's owner out.
    """

    def __init__(self) -> None:
        self._in_progress: set[str] = set()

    @contextlib.contextmanager
    def begin(self, secret: str | None) -> Iterator[bool]:
        """Whether this handshake may proceed; False while another with the same secret does."""
        # Without a secret of ours it will be refused for that.
        name = hash_of(secret) if secret is not None and id_in(secret) is not None else ""
        if name in self._in_progress:
            yield False
            return
        if name:
            self._in_progress.add(name)
        try:
            yield True
        finally:
            self._in_progress.discard(name)
