"""TLS contexts: one for everybody, and one for each client certificate in use.

aiohttp shares connections by context, so two certificates never share one. Where the system's authorities are
one file, a context takes 80 ms of a processor and 0.8 MB: it is made in a thread, and the last 128 are kept,
32 of them of one account: one with hundreds of certificates makes its own again and again, and no other's.
"""

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.model.client_certificates import ClientCertificate
from shared.outbound.certificate_names import NamingSSLObject
from shared.outbound.places import FairPlaces
from shared.tls import client_context

_KEPT = 128
_KEPT_OF_ACCOUNT = 32
_AT_ONCE = 2


class CertificateUnusable(Exception):
    """OpenSSL cannot use the client certificate of a channel."""


def usual_context(
    *, client_cert: Path | None = None, client_key: Path | None = None, ca: Path | None = None
) -> ssl.SSLContext:
    """The context of requests without a certificate of their own. Raises OSError."""
    context = client_context()
    context.sslobject_class = NamingSSLObject
    # A context of one's own has none, and aiohttp adds none: receivers that want it (Go's) close.
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        context.load_verify_locations(ca)
    if client_cert is not None:
        # Without a password OpenSSL asks for one at the terminal.
        context.load_cert_chain(client_cert, client_key, password="")
    return context


def check_usable(certificate: ClientCertificate) -> None:
    """Raises CertificateUnusable. It takes milliseconds."""
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)


class Contexts:
    """Contexts of client certificates, each made once; accounts take turns while they are made."""

    def __init__(self, *, ca: Path | None, make: Callable[..., ssl.SSLContext] = usual_context) -> None:
        self._ca = ca
        self._make = make
        self._kept: OrderedDict[str, tuple[str, ssl.SSLContext]] = OrderedDict()
        self._running: dict[str, asyncio.Task[ssl.SSLContext]] = {}
        self._places = FairPlaces(_AT_ONCE, per_account=1)

    async def of(self, certificate: ClientCertificate, *, account: str) -> ssl.SSLContext:
        """Raises CertificateUnusable."""
        version = certificate.version
        if (kept := self._kept.get(version)) is not None:
            self._kept.move_to_end(version)
            return kept[1]
        running = self._running.get(version)
        if running is None:
            running = self._running[version] = asyncio.create_task(self._run(certificate, account))
            running.add_done_callback(lambda task: self._ended(version, task))
        # A caller that is out of time leaves it to the next one.
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Ends what is being made."""
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, certificate: ClientCertificate, account: str) -> ssl.SSLContext:
        await self._places.take(account)
        try:
            context = await asyncio.to_thread(self._made, certificate)
        finally:
            self._places.give_back(account)
        self._keep(certificate.version, account, context)
        return context

    def _keep(self, version: str, account: str, context: ssl.SSLContext) -> None:
        self._kept[version] = account, context
        own = [each for each, (owner, _) in self._kept.items() if owner == account]
        if len(own) > _KEPT_OF_ACCOUNT:
            del self._kept[own[0]]
        elif len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _made(self, certificate: ClientCertificate) -> ssl.SSLContext:
        context = self._make(ca=self._ca)
        _load(context, certificate)
        return context

    def _ended(self, version: str, task: asyncio.Task[ssl.SSLContext]) -> None:
        self._running.pop(version, None)
        if not task.cancelled():
            # Every caller may have gone, and asyncio logs an error that is never retrieved.
            task.exception()


def _load(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    try:
        with _as_file(certificate) as file:
            context.load_cert_chain(file, password="")
    except OSError as exc:
        raise CertificateUnusable from exc


@contextlib.contextmanager
def _as_file(certificate: ClientCertificate) -> Iterator[str]:
    """OpenSSL reads files only. Where the system can do it, this one is in memory: a key is on no disk."""
    text = f"{certificate.chain}\n{certificate.key}\n".encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            yield file.name
