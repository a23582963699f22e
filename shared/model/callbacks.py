"""Rules for a webhook's URL and headers. `model.addresses` has those for the host's address, at each call.

URL and headers are stored unchanged: clients compare what they read with what they wrote.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from shared.model.errors import Invalid

LONGEST = 400
"""Of the URL and the headers of an API key's webhook, in characters."""
LONGEST_URL = 2048
"""Of a native webhook."""
MOST_HEADERS = 32
LONGEST_HEADERS = 8 * 1024
"""Their names and values together: servers usually read as much, or twice that."""

_URL = re.compile(r"https?://(?P<authority>[^/?]*)(?:[/?].*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
# Some parsers read a host whose last label is one of these as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_NAME_LIMIT = 253
# The ASCII form leaves these signs out: `evil` with one of them inside would be called as `evil`.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u1806\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
# They sign or frame the request, or belong to one connection.
_OUR_HEADERS = re.compile(
    r"webhook-(id|timestamp|signature)|proxy-.*|host|content-(length|encoding)|transfer-encoding|connection"
    r"|keep-alive|te|trailer|upgrade|expect|http2-settings",
    re.IGNORECASE,
)
_wrong_url = partial(Invalid, field="url")


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a webhook channel delivers to. Headers may hold credentials, so the repr leaves them out."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def callback(url: str, headers: Mapping[str, str]) -> Callback:
    """The checked callback. Raises Invalid, naming `url` or `headers`.

    URL, names and values of the headers have at most 400 characters together, as in the Pelion service.
    """
    checked = Callback(callback_url(url), callback_headers(headers))
    length = len(url) + _size(headers)
    if length > LONGEST:
        raise Invalid(f"url and headers together have {length} characters, at most {LONGEST} are taken")
    return checked


def native_callback(url: str, headers: Mapping[str, str], secret_headers: Mapping[str, str]) -> Callback:
    """The checked callback of a native webhook, with all of these headers.

    Raises Invalid, naming `url`, `headers` or `secret_headers`.
    """
    checked = {**callback_headers(headers), **callback_headers(secret_headers, field="secret_headers")}
    shown = {name.lower() for name in headers}
    for name in secret_headers:
        if name.lower() in shown:
            raise Invalid(f"{name} must not be in headers too", field="secret_headers")
    longer = "headers" if _size(headers) >= _size(secret_headers) else "secret_headers"
    if len(checked) > MOST_HEADERS:
        raise Invalid(f"makes {len(checked)} headers in all, at most {MOST_HEADERS} are taken", field=longer)
    if (size := _size(checked)) > LONGEST_HEADERS:
        raise Invalid(
            f"makes {size} characters of headers in all, at most {LONGEST_HEADERS} are taken", field=longer
        )
    return Callback(callback_url(url, longest=LONGEST_URL), checked)


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())


def callback_url(url: str, *, longest: int = LONGEST) -> str:
    """The same URL. Raises Invalid, naming `url`.

    Host names in other scripts are allowed. Refused is all that programs may read in different ways: numbers
    for IPv4 addresses (`2130706433`, `0x7f.1`, `127.1`), blanks, control characters, backslashes,
    credentials.
    """
    if len(url) > longest:
        raise _wrong_url(f"has {len(url)} characters, at most {longest} are taken")
    if not url.isprintable() or any(sign.isspace() or sign == "\\" for sign in url):
        raise _wrong_url("must not contain blanks, control characters or backslashes")
    if "#" in url:
        raise _wrong_url("must not have a fragment; write a # as %23")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise _wrong_url("must start with http:// or https://")
    if "@" in parts["authority"]:
        raise _wrong_url("must not contain credentials; use headers")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or not _is_host(authority):
        raise _wrong_url("must name a host, by its DNS name or an IP address in its usual form")
    if authority["port"] is not None and not 1 <= int(authority["port"]) <= 65535:
        raise _wrong_url("must have a port between 1 and 65535")
    return url


def callback_headers(headers: Mapping[str, str], *, field: str = "headers") -> dict[str, str]:
    """The same headers. Raises Invalid, naming `field`.

    `Authorization`, `Cookie`, `User-Agent` and `Content-Type` are allowed; this Content-Type replaces ours.
    Headers that frame or sign the request, or belong to one connection, are refused. Values are ASCII:
    receivers disagree on how to read anything else.
    """
    wrong, seen = partial(Invalid, field=field), set[str]()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise wrong("a header's name must be letters, digits and !#$%&'*+-.^_`|~")
        if _OUR_HEADERS.fullmatch(name):
            raise wrong(f"{name} is set by the gateway")
        if name.lower() in seen:
            raise wrong(f"{name} must be given once")
        if not _VALUE.fullmatch(value):
            raise wrong(f"the value of {name} must be printable ASCII")
        seen.add(name.lower())
    return dict(headers)


def _is_host(authority: re.Match[str]) -> bool:
    if authority["literal"] is not None:
        return _is_address(ipaddress.IPv6Address, authority["literal"])
    name = authority["name"]
    if name.isascii():
        return _is_address(ipaddress.IPv4Address, name) or _is_name(name)
    if _INVISIBLE.search(name):
        return False
    # Compatibility forms fold to ASCII (①②⑦ is 127), and the ideographic full stop is a dot.
    folded = unicodedata.normalize("NFKC", name).replace("。", ".")
    try:
        # Some names that mix directions of writing have no ASCII form, so no client can look them up.
        name.encode("idna")
    except UnicodeError:
        return False
    return _is_name("".join(sign if sign.isascii() else "x" for sign in folded), longest=LONGEST)


def _is_name(name: str, *, longest: int = _NAME_LIMIT) -> bool:
    labels = name.removesuffix(".").split(".")
    return (
        len(name) <= longest
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _is_address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
