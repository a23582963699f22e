"""How this project verifies a server's certificate: the same on every version of Python.

Since Python 3.13 a default context also demands extensions of RFC 5280, which many private authorities leave
out, and trusts a named intermediate certificate. Without this module a webhook's receiver, a Redis or a
collector that was verified would be refused after an image changed its Python.
"""

import ssl

_DIFFERS = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN


def client_context() -> ssl.SSLContext:
    """Verifies chain and host name by the authorities that the system trusts."""
    return verifying_alike(ssl.create_default_context())


def verifying_alike(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context itself, without the flags that only some versions of Python set."""
    context.verify_flags &= ~_DIFFERS
    return context
