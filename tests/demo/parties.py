"""The two parties of the demo and their API keys: one publishes, the other has the channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.demo.readings import PATH
from tests.harness.api import Api, ApiKey


@dataclass(frozen=True, slots=True)
class Parties:
    """What the publisher and the receiver prove themselves by."""

    publisher: ApiKey
    receiver: ApiKey


@asynccontextmanager
async def introduced(api: Api) -> AsyncIterator[Parties]:
    """An account of their own and a channel that asks for both devices; ends the API keys at the end."""
    account = await api.account("demo")
    publisher = await api.api_key(account=account, scopes=("publish",))
    receiver = await api.api_key(account=account, scopes=("receive",))
    try:
        await api.register(receiver)
        # Two of the forms that a presubscription may have: one whole name, and two prefixes.
        temperatures = PATH.removesuffix("5700") + "*"
        await api.subscribe(
            receiver,
            {"endpoint-name": "seattle"},
            {"endpoint-name": "san-*", "resource-path": [temperatures]},
        )
        yield Parties(publisher, receiver)
    finally:
        await api.revoke(publisher)
        await api.revoke(receiver)
