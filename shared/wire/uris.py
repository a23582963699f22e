"""URIs and their references as RFC 3986 writes them: ASCII only, everything else percent-encoded."""

import re

_P = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
# The first segment of a relative path: a colon would end a scheme.
_NO_COLON = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=@]|%[0-9A-Fa-f]{2})"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)"
_USER = r"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*@)?"
_AUTHORITY = rf"//{_USER}{_HOST}(?::[0-9]*)?(?:/{_P}*)*"
_ABSOLUTE_PATH = rf"/(?:{_P}+(?:/{_P}*)*)?"
_REST = rf"(?:\?(?:{_P}|[/?])*)?(?:#(?:{_P}|[/?])*)?"
_URI = re.compile(
    rf"[A-Za-z][A-Za-z0-9+\-.]*:(?:{_AUTHORITY}|{_ABSOLUTE_PATH}|{_P}+(?:/{_P}*)*)?{_REST}", re.ASCII
)
_RELATIVE = re.compile(rf"(?:{_AUTHORITY}|{_ABSOLUTE_PATH}|{_NO_COLON}+(?:/{_P}*)*)?{_REST}", re.ASCII)


def is_uri(text: str) -> bool:
    """Whether it is a URI, with its scheme."""
    return _URI.fullmatch(text) is not None


def is_uri_reference(text: str) -> bool:
    """Whether it is a URI or a relative reference. The empty text is one too."""
    return is_uri(text) or _RELATIVE.fullmatch(text) is not None
