"""The secret and the subprotocol of a WebSocket handshake (sections 1 and 4)."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

SUBPROTOCOL = "wss"
_PREFIX = "pelion_"


def bearer(authorization: str) -> str | None:
    """The secret in an Authorization header, with the scheme in any case."""
    scheme, _, secret = authorization.partition(" ")
    # No more than blanks: a byte that is no blank belongs to the secret.
    return secret.strip(" \t") or None if scheme.lower() == "bearer" else None


def secret_offered(headers: Mapping[str, str], subprotocols: Sequence[str]) -> str | None:
    """The secret of a handshake: from the header, else from the subprotocol `pelion_…`."""
    given = bearer(headers.get("authorization", ""))
    if given:
        return given
    for offered in subprotocols:
        if offered.startswith(_PREFIX):
            return offered.removeprefix(_PREFIX)
    return None


def subprotocol_response(subprotocols: Sequence[str]) -> str | None:
    """The subprotocol of the response: `wss` when offered, never the one with the secret."""
    return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None


def channel_in(query: bytes) -> str:
    """The channel that the URL names, by its id or name; '' for the API key's own."""
    return "" if not query else parse_qs(query.decode(errors="replace")).get("channel", [""])[-1]
