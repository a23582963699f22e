"""Which web pages may open a WebSocket. Browsers let any page try, and CORS does not hold them back.

No request is authenticated by a cookie, so what a page may do is what its token allows. An operator who knows
the pages can refuse all others.
"""

from collections.abc import Collection, Iterable

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def may_connect(headers: Iterable[tuple[bytes, bytes]], origins: Collection[str]) -> bool:
    """May the page of this handshake connect? It is of one of the origins (`*`: any), or of this host itself.

    A handshake without `Origin` is no page's.
    """
    if "*" in origins:
        return True
    given = [(name, value.decode("latin-1").strip().lower()) for name, value in headers]
    hosts = [value for name, value in given if name == b"host"]
    return all(origin in origins or _is_of(origin, hosts) for name, origin in given if name == b"origin")


def _is_of(origin: str, hosts: list[str]) -> bool:
    """Is it an origin of this host? A proxy may have ended TLS, so the scheme is the origin's."""
    scheme, separator, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if not separator or not authority or port is None or len(hosts) != 1:
        return False
    return authority.removesuffix(port) == hosts[0].removesuffix(port)
