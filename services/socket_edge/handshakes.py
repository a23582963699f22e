"""What the handshakes of all dialects have in common: how they are refused, and one per secret at a time."""

import logging
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Scope, Send

from shared import telemetry
from shared.model.api_keys import hash_of, id_in
from shared.model.errors import Invalid, MissingScope, StoreUnavailable
from shared.runtime.http.responses import (
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
    except MissingScope as error:
        problem, outcome = Problem(403, str(error)), {"outcome": "refused"}
    except Problem as error:
        problem, outcome = error, {"outcome": "refused"}
    except Exception:
        logger.exception("handshake.failed", extra={"facts": {"request_id": request_id_of(scope)}})
        problem, outcome = internal_error(), {"outcome": "failed"}
    telemetry.handshakes.add(1, outcome)
    await refuse_handshake(scope, send, problem)
    return None


class Mark:
    """One handshake, until it is over."""

    __slots__ = ("_marked", "_name")

    def __init__(self, marked: set[str], name: str | None) -> None:
        self._marked = marked
        self._name = name

    def over(self) -> None:
        """Accepted, refused or broken off; a second call does nothing."""
        if self._name is not None:
            self._marked.discard(self._name)
            self._name = None


class Handshakes:
    """Lets one handshake with each secret proceed at a time (docs/protocols/pelion.md, section 4).

    By the secret and not by the id in it: more people know the id, and could keep the key's owner out.
    """

    def __init__(self) -> None:
        self._marked: set[str] = set()

    def begin(self, secret: str | None) -> Mark | None:
        """The mark of a new handshake; None while another with the same secret is in progress."""
        if secret is None or id_in(secret) is None:
            # It will be refused for that.
            return Mark(self._marked, None)
        name = hash_of(secret)
        if name in self._marked:
            return None
        self._marked.add(name)
        return Mark(self._marked, name)
