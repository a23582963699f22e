"""All services on one origin, and each stock server once for a worker."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Protocol

import aiohttp
import pytest

from tests.deploy.caddy import caddy_to
from tests.deploy.proxies import proxy_to
from tests.harness import leaks
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api
from tests.harness.certificates import Certificates
from tests.stock.receivers import StockReceiver, running

DOORS = ["direct", "haproxy", "nginx", pytest.param("caddy", marks=pytest.mark.long)]


class Receivers(Protocol):
    """The receiver on the server of this name, which runs until the end of the session."""

    def __call__(self, server: str) -> StockReceiver: ...


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("receiver", by="authority")
    return made


@pytest.fixture(scope="session")
def receivers(certificates: Certificates) -> Iterator[Receivers]:
    with ExitStack() as stack:
        yield cache(lambda server: stack.enter_context(running(server, certificates)))


@pytest.fixture(scope="session")
def origin(certificates: Certificates) -> Iterator[AllInOne]:
    """It trusts proxies of this machine, and the authority of the receivers."""
    with all_in_one(
        ALLOW_PRIVATE_CALLBACKS=1,
        CALLBACK_CA=certificates.pem("authority"),
        LONG_POLL_WAIT_S=600,
        TRUSTED_PROXIES="127.0.0.0/8",
    ) as service:
        service.start()
        service.wait_ready()
        yield service
        leaks.assert_none_in_outputs([service])


@pytest.fixture
def api(origin: AllInOne, http: aiohttp.ClientSession) -> Api:
    return Api(http, origin.url, origin.admin_token)


@contextmanager
def _front(kind: str, origin: str) -> Iterator[str]:
    """The origin behind a proxy of this kind, or itself."""
    match kind:
        case "direct":
            yield origin
        case "caddy":
            with caddy_to(edges=[origin], gateways=[origin]) as (url, _):
                yield url
        case _:
            with proxy_to(kind, origin) as url:
                yield url


@pytest.fixture(scope="module", params=DOORS)
def door(request: pytest.FixtureRequest, origin: AllInOne) -> Iterator[str]:
    """The API's origin as a client sees it: direct, or behind a proxy."""
    with _front(request.param, origin.url) as url:
        yield url
