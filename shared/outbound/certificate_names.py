"""The names in a receiver's certificate, for the error of a handshake that fails because none is ours.

OpenSSL has the certificate then, and Python shows it to an SSL object only. So the object adds the names to
the error itself: nothing has to connect a second time.
"""

import contextlib
import re
import ssl
from typing import Any

_WRONG_NAME = (62, 64)
# A receiver chooses the names: the error leaves out what is none, and what has no room in a line.
_NAME = re.compile(r"[0-9A-Za-z_*.:-]{1,100}", re.ASCII)
_SHOWN = 3


class NamingSSLObject(ssl.SSLObject):
    """Adds `names` to the error of a handshake that failed for the name of the certificate."""

    _sslobj: Any

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in _WRONG_NAME:
                # Only Python 3.13 documents it.
                with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
                    first = self._sslobj.get_unverified_chain()[0].get_info()
                    error.names = [value for _, value in first["subjectAltName"]]  # type: ignore[attr-defined]
            raise


def certificate_names(error: BaseException) -> str:
    """The first names, as in `a.example, b.example and 4 more`; '' if they are not known."""
    names = [name for name in getattr(error, "names", ()) if isinstance(name, str) and _NAME.fullmatch(name)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
