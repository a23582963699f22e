"""Everything on one origin, since many clients know one host only."""

from collections.abc import Iterator

import aiohttp
import pytest

from tests.harness import leaks
from tests.harness.all_in_one import AllInOne, all_in_one
from tests.harness.api import Api


@pytest.fixture(scope="session")
def origin() -> Iterator[AllInOne]:
    """A poll waits longer than any test: one that ends earlier was ended, or answered."""
    with all_in_one(ALLOW_PRIVATE_CALLBACKS=1, LONG_POLL_WAIT_S=600) as service:
        service.start()
        service.wait_ready()
        yield service
        leaks.assert_none_in_outputs([service])


@pytest.fixture
def api(origin: AllInOne, http: aiohttp.ClientSession) -> Api:
    return Api(http, origin.url, origin.admin_token)
