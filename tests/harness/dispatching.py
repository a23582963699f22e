"""Fixtures of tests of native webhooks: an installation for a module, an account on it, and a receiver.

A module makes its own `dispatching`, and names the other two in its `__all__`.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.harness.api import Api
from tests.harness.channels import AccountChannels
from tests.harness.stack import RedisLike, Stack, running_stack
from tests.harness.webhooks import Webhook, webhook


def dispatching_with(**options: Any) -> Any:
    """A fixture for a module: a gateway and two dispatchers, unless options of `running_stack` say more."""

    @pytest.fixture(scope="module")
    def dispatching(redis_like: RedisLike | None) -> Iterator[Stack]:
        usual = {"gateways": 1, "edges": 0, "dispatchers": 2, "ALLOW_PRIVATE_CALLBACKS": "1"}
        with running_stack(redis_like=redis_like, **{**usual, **options}) as stack:
            yield stack

    return dispatching


@pytest.fixture
async def mine(dispatching: Stack, http: aiohttp.ClientSession) -> AccountChannels:
    """Those of an account of the test's own: notices go to all who bind them."""
    api = Api(http, dispatching.gateways[0].url, dispatching.admin_token)
    return AccountChannels(api, await api.api_key(scopes=("publish", "channels")))


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    """A receiver that accepts everything until it is told otherwise."""
    async with webhook() as receiver:
        yield receiver
