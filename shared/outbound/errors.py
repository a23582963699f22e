"""Why a call failed: a constant for programs and metrics, and words for the owner of the webhook.

The words name the host as it is in the URL, never the address behind it: what our name servers say of our own
networks is none of the customer's business. Of what a receiver has sent they quote only the names in its
certificate.
"""

import errno
import re
import ssl
from dataclasses import dataclass

import aiohttp

from shared.model.addresses import METADATA, NOT_AN_ADDRESS
from shared.outbound.calls import BadAnswer, ConnectionLost
from shared.outbound.certificate_names import certificate_names
from shared.outbound.certificates import CertificateUnusable
from shared.outbound.proxy import ProxyFailed
from shared.outbound.resolver import AddressRefused
from shared.outbound.urls import host_of, place_of

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")
_REASON = re.compile(r"\[SSL: ([A-Z0-9_]+)\]")
_HOST_LIMIT = 260
# OpenSSL's numbers of what is wrong with a certificate.
_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "comes from an authority of its own, which the gateway does not trust",
    20: "comes from an unknown authority, or the receiver does not send the whole chain",
    21: "comes from an unknown authority, or the receiver does not send the whole chain",
    23: "was revoked",
    26: "is not one for servers",
    62: "is for another name than {host}",
    64: "is for another address than {host}",
}
# OpenSSL's names of what is wrong with a handshake, by a part of the name.
_HANDSHAKE_FAULTS = (
    ("CERTIFICATE_REQUIRED", "{place} demands a client certificate: set one for the channel"),
    ("UNKNOWN_CA", "{place} does not know the authority of the client certificate"),
    ("CERTIFICATE_EXPIRED", "{place} says that the client certificate has expired"),
    ("CERTIFICATE", "{place} refuses the client certificate"),
    ("UNSUPPORTED_PROTOCOL", "{place} offers no TLS version from 1.2 on"),
    ("PROTOCOL_VERSION", "{place} offers no TLS version from 1.2 on"),
    ("WRONG_VERSION_NUMBER", "{place} does not speak TLS: is the URL's scheme or port wrong?"),
    ("RECORD_LAYER_FAILURE", "{place} does not speak TLS: is the URL's scheme or port wrong?"),
    ("HTTP_REQUEST", "{place} does not speak TLS: is the URL's scheme or port wrong?"),
    ("UNRECOGNIZED_NAME", "{place} has no certificate for {host}"),
    ("HANDSHAKE_FAILURE", "{place} has no TLS version or cipher in common with the gateway"),
)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Failure:
    """`error` is one of few constants; `detail` says it in words."""

    error: str
    detail: str


def failure_of(exc: BaseException, url: str, *, timeout_s: float, was_sent: bool) -> Failure:
    """`was_sent`: a connection has carried the request."""
    host, place = host_of(url)[:_HOST_LIMIT], place_of(url)[:_HOST_LIMIT]
    match exc:
        case TimeoutError():
            waited = f"for the response of {place}" if was_sent else f"for a connection to {place}"
            return Failure("timed-out", f"timed out after {timeout_s:g} s: waited {waited}")
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refused):
            return Failure("address-refused", _refused(refused.category, host))
        case aiohttp.ClientConnectorDNSError():
            says = _ERRNO.sub("", str(exc.os_error))
            return Failure("not-resolved", f"no address found for {host}: {says}")
        case aiohttp.ClientConnectorCertificateError():
            return Failure("tls-failed", _certificate_fault(exc.certificate_error, host))
        case aiohttp.ClientSSLError():
            reason = getattr(exc.os_error, "reason", None) or ""
            return Failure("tls-failed", _handshake_fault(reason, host=host, place=place))
        case aiohttp.ClientConnectorError(os_error=ProxyFailed() as failed):
            return Failure("not-connected", failed.words)
        case aiohttp.ClientConnectorError():
            return Failure(
                "not-connected", _unconnected(exc.os_error, place, is_tls=url.lower().startswith("https:"))
            )
        case BadAnswer():
            return Failure("bad-answer", f"{place} did not respond by HTTP/1.1")
        case CertificateUnusable():
            return Failure("tls-failed", "the channel's client certificate cannot be used: put it again")
        case ValueError() | aiohttp.NonHttpUrlClientError():
            detail = "the URL or a header makes no valid HTTP request: change the channel's URL or headers"
            return Failure("not-sendable", detail)
        case ConnectionLost() if reason := _reason_behind(exc):
            # TLS 1.3: the receiver refuses after the handshake has ended for the client.
            return Failure("tls-failed", _handshake_fault(reason, host=host, place=place))
        case _:
            return Failure("closed", f"{place} closed the connection before a response")


def _refused(category: str, host: str) -> str:
    if category == METADATA:
        return f"metadata address blocked: {host} leads to one, and no setting allows it"
    if category == NOT_AN_ADDRESS:
        return f"address blocked: {host} does not lead to an IP address"
    return (
        f"{category} address blocked (NOTIFY_ALLOW_PRIVATE_CALLBACKS): {host} leads to a network that the "
        "gateway's operator has not allowed"
    )


def _certificate_fault(fault: Exception, host: str) -> str:
    code = fault.verify_code if isinstance(fault, ssl.SSLCertVerificationError) else 0
    says = fault.verify_message if isinstance(fault, ssl.SSLCertVerificationError) else "it was refused"
    if names := certificate_names(fault):
        return f"certificate is for {names}, not for {host}"
    known = _CERTIFICATE_FAULTS.get(code)
    return f"certificate {known.format(host=host)}" if known else f"certificate of {host} is invalid: {says}"


def _reason_behind(exc: BaseException) -> str:
    """OpenSSL's name of why a connection was lost. aiohttp keeps it in a message only."""
    found = _REASON.search(str(exc.__cause__))
    return found[1] if found else ""


def _handshake_fault(reason: str, *, host: str, place: str) -> str:
    for part, words in _HANDSHAKE_FAULTS:
        if part in reason:
            return words.format(host=host, place=place)
    known = reason.lower().replace("_", " ")
    return f"no TLS connection to {place}: {known or 'the handshake ended early'}"


def _unconnected(fault: OSError, place: str, *, is_tls: bool) -> str:
    if fault.errno == errno.ECONNREFUSED:
        return f"connection refused by {place}"
    if fault.errno in _UNREACHABLE:
        return f"no route to {place}"
    if fault.errno == errno.ECONNRESET or isinstance(fault, ConnectionError):
        return f"{place} closed the connection {'during the TLS handshake' if is_tls else 'at once'}"
    return f"no connection to {place}"
