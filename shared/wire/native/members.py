"""The members of a JSON object, none of which may stand twice: two readers could take two values."""

import json
import re
from typing import Any

import msgspec

from shared.model.errors import GatewayError

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NEXT = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\r\n]*")


class Malformed(GatewayError):
    """A text is no JSON object, or has a name twice. The message quotes nothing of it."""


def members(text: bytes) -> dict[str, bytes]:
    """The members of the object, each as its bytes. Raises Malformed."""
    try:
        found = {name: bytes(raw) for name, raw in _MEMBERS.decode(text).items()}
    except msgspec.ValidationError:
        raise Malformed("is no JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Malformed("is not JSON") from None
    except RecursionError:
        raise Malformed("is nested too deeply") from None
    if not _is_exactly(text, found):
        _check_names(text.decode())
    return found


def _is_exactly(text: bytes, found: dict[str, bytes]) -> bool:
    """Do these members, as libraries write them, make this text? Then nothing else is in it."""
    for between, colon in ((b",", b":"), (b", ", b": ")):
        written = between.join(b'"%b"%b%b' % (name.encode(), colon, value) for name, value in found.items())
        if len(written) + 2 == len(text) and text[1:-1] == written:
            return True
    return False


def _check_names(text: str) -> None:
    """Raises Malformed for a name that stands twice. The text is known to be an object."""
    names = set[str]()
    at = _behind(text, _behind(text, 0) + 1)
    try:
        while text[at] != "}":
            name, at = _next(text, at)
            if name in names:
                raise Malformed("has a name twice")
            names.add(name)
            # Behind the colon.
            _, at = _next(text, _behind(text, at) + 1)
            at = _behind(text, at)
            if text[at] == ",":
                at = _behind(text, at + 1)
    except (ValueError, RecursionError, IndexError):
        raise Malformed("is not JSON") from None


def _next(text: str, at: int) -> tuple[Any, int]:
    return _NEXT.raw_decode(text, _behind(text, at))


def _behind(text: str, at: int) -> int:
    """The first place from there on that is no blank."""
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()
