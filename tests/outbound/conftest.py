"""Outbound calls that may go to loopback, where the tests' receivers are."""

import ipaddress
from collections.abc import AsyncIterator

import pytest

from shared.model.addresses import AddressPolicy
from shared.outbound.client import Outbound

LOOPBACK = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    """A client with the deadline of the product."""
    async with Outbound(policy=LOOPBACK) as calls:
        yield calls


@pytest.fixture
async def hasty() -> AsyncIterator[Outbound]:
    """A client with a deadline that a test can wait for."""
    async with Outbound(policy=LOOPBACK, timeout_s=0.3) as calls:
        yield calls
