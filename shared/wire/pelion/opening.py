"""How a client gives its key when it opens a socket (sections 1 and 4)."""

from collections.abc import Mapping, Sequence

SUBPROTOCOL = "wss"
_PREFIX = "pelion_"


def bearer(authorization: str) -> str | None:
    """The secret in an Authorization header; the scheme may be in any case."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def secret_offered(headers: Mapping[str, str], subprotocols: Sequence[str]) -> str | None:
    """The secret a handshake carries: the header wins, else the subprotocol `pelion_…`."""
    given = bearer(headers.get("authorization", ""))
    if given:
        return given
    for offered in subprotocols:
        if offered.startswith(_PREFIX):
            return offered.removeprefix(_PREFIX)
    return None


def subprotocol_answer(subprotocols: Sequence[str]) -> str | None:
    """The one subprotocol to answer with: `wss` when offered, never the key, none when none was offered."""
    return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
