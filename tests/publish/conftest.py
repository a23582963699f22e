"""Gateways on the fake Redis of one test."""

from collections.abc import Callable

import fakeredis
import pytest

from tests.publish.publishing import Gateway
from tests.store.stores import Stores

NewGateway = Callable[[], Gateway]


@pytest.fixture
def new_gateway(server: fakeredis.FakeServer, stores: Stores) -> NewGateway:
    """Makes gateways of the account of `stores`."""
    return lambda: Gateway(server, stores.account_id)


@pytest.fixture
def gateway(new_gateway: NewGateway) -> Gateway:
    return new_gateway()
