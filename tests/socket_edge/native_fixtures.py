"""An edge, and its native clients: strangers, and such as have authenticated."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from services.socket_edge.edge import Edge
from shared.clock import now_ms
from shared.model.api_keys import Account
from shared.native_tokens import Claims
from tests.socket_edge.conftest import Clock, edge_of
from tests.socket_edge.native_client import Client, reader_of
from tests.store.stores import Stores

Opened = Callable[..., Awaitable[Client]]
Token = Callable[..., Awaitable[str]]
SETTINGS = {"unauthenticated_frames": 20, "unauthenticated_bytes": 4096, "stream_buffer_bytes": 4096}


@pytest.fixture
async def edge(stores: Stores, clock: Clock) -> Edge:
    return edge_of(stores, **SETTINGS)


@pytest.fixture
async def clients(edge: Edge) -> AsyncIterator[list[Client]]:
    clients: list[Client] = []
    yield clients
    for client in clients:
        await client.leave()
    assert len(edge.registry) == len(edge.admission) == 0


@pytest.fixture
def stranger(edge: Edge, clients: list[Client]) -> Opened:
    async def stranger(**options: Any) -> Client:
        clients.append(Client(edge, **options))
        return await clients[-1].open()

    return stranger


@pytest.fixture
def known(stores: Stores, edge: Edge, clients: list[Client]) -> Opened:
    """Opens sockets that have authenticated."""

    async def known(**options: Any) -> Client:
        clients.append(Client(edge, **options))
        return await clients[-1].open(reader_of(stores.account_id, "news.#"))

    return known


@pytest.fixture
def token(stores: Stores, edge: Edge) -> Token:
    accounts = set[str]()

    async def token(subject: str = "user-1", account: str = "") -> str:
        account = account or stores.account_id
        if account not in accounts:
            accounts.add(account)
            await stores.api_keys.create_account(Account(id=account, name="a"))
        claims = Claims(subject, read=["news.#"])
        minted, _ = await edge.stores.native_tokens.mint(account, claims, lifetime_s=60, now_ms=now_ms())
        return minted

    return token
