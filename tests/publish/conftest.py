"""Gateways on the fake Redis of one test."""

from collections.abc import Callable

import fakeredis
import pytest

from tests.publish.publishing import WIDE, Gateway, bound_channel, event
from tests.store.stores import Stores

NewGateway = Callable[[], Gateway]


@pytest.fixture
def new_gateway(server: fakeredis.FakeServer, stores: Stores) -> NewGateway:
    """Makes gateways of the account of `stores`."""
    return lambda: Gateway(server, stores.account_id)


@pytest.fixture
def gateway(new_gateway: NewGateway) -> Gateway:
    return new_gateway()


@pytest.fixture
async def channels(gateway: Gateway, stores: Stores) -> list[str]:
    """The channels of an account that a publish reaches in several lots."""
    made = [await bound_channel(stores) for _ in range(WIDE)]
    await gateway.publish(event(0))
    gateway.count_pipelines()
    return made
