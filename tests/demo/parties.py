"""The demo's two API keys: one publishes, the other has the channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.demo.readings import PATH
from tests.harness.api import Api, ApiKey


@dataclass(frozen=True, slots=True)
class Keys:
    """The API keys of publisher and receiver."""

    publisher: ApiKey
    receiver: ApiKey


@asynccontextmanager
async def created_keys(api: Api) -> AsyncIterator[Keys]:
    """Creates account, keys and a channel subscribed to both devices; revokes the keys at the end."""
    account = await api.account("demo")
    publisher = await api.api_key(account=account, scopes=("publish",))
    receiver = await api.api_key(account=account, scopes=("receive",))
    try:
        await api.register(receiver)
        # Two forms of presubscriptions: a whole name, and two prefixes.
        temperatures = PATH.removesuffix("5700") + "*"
        await api.subscribe(
            receiver,
            {"endpoint-name": "seattle"},
            {"endpoint-name": "san-*", "resource-path": [temperatures]},
        )
        yield Keys(publisher, receiver)
    finally:
        await api.revoke(publisher)
        await api.revoke(receiver)
