"""The cache of API keys: an answered revocation counts within a second, however quiet the account is."""

import asyncio
import time

import pytest
from starlette.requests import Request

from services.gateway.authenticator import Authenticator, digest_of
from shared.model.api_keys import ApiKey, Scope, new_id, new_secret
from shared.model.errors import Unauthenticated
from shared.native_tokens import NativeTokens
from shared.runtime.settings import Settings
from shared.runtime.stranger_limits import StrangerLimits
from tests.store.stores import Stores

QUIET_S = 5.0
LONG_S = 60.0


def authenticator_of(stores: Stores, admin_token: str) -> Authenticator:
    tokens, limits = NativeTokens(stores.token_keys), StrangerLimits(Settings())
    return Authenticator(stores.api_keys, tokens, admin_token=admin_token, limits=limits)


@pytest.fixture
def authenticator(stores: Stores) -> Authenticator:
    return authenticator_of(stores, "operator")


@pytest.fixture
async def publisher(stores: Stores) -> tuple[ApiKey, str]:
    """An API key, and the header with its secret."""
    key, secret = await stores.api_key(Scope.PUBLISH)
    return key, f"Bearer {secret}"


def request(header: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", header.encode())], "client": ("::1", 1)})


async def read_version(stores: Stores, authenticator: Authenticator, *, at_s: float) -> None:
    """A publish of any account reads the version of all credentials."""
    versions = stores.routing.tables.versions(new_id())
    await versions.wait()
    authenticator.on_credentials_version(versions.of_credentials_and_quotas[0], at_s)


async def remembered(stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]) -> float:
    """The key is in the cache; returns when."""
    await read_version(stores, authenticator, at_s=time.monotonic())
    await authenticator.require(request(publisher[1]), Scope.PUBLISH)
    return time.monotonic()


async def test_key_stays_cached_while_the_version_is_read(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]
) -> None:
    now_s = await remembered(stores, authenticator, publisher) + QUIET_S
    assert authenticator.cached(digest_of(publisher[1]), now_s=now_s) is None, "nothing was read for a while"

    await read_version(stores, authenticator, at_s=now_s)

    assert authenticator.cached(digest_of(publisher[1]), now_s=now_s + 0.9) == publisher[0]
    assert authenticator.cached(digest_of(publisher[1]), now_s=now_s + 1.1) is None


@pytest.mark.parametrize("how", ["revoke", "rotate"])
async def test_changed_key_is_not_cached_any_more(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str], how: str
) -> None:
    now_s = await remembered(stores, authenticator, publisher) + QUIET_S
    key, header = publisher
    if how == "revoke":
        await stores.api_keys.revoke(key)
    else:
        await stores.api_keys.rotate(key, secret_hash="0" * 64, old_valid_until_ms=0)

    await read_version(stores, authenticator, at_s=now_s)

    assert authenticator.cached(digest_of(header), now_s=now_s) is None


async def test_key_that_was_read_before_a_change_is_not_cached_after_it(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]
) -> None:
    """The key is read, revoked, and the version is read before the reply with the key arrives."""
    key, header = publisher
    began_s = await remembered(stores, authenticator, publisher)
    authenticator.forget(key.id)
    authenticating = asyncio.create_task(authenticator.require(request(header), Scope.PUBLISH))
    # As far as the read of the key.
    await asyncio.sleep(0)

    authenticator.on_credentials_version(b"changed", began_s)
    await authenticating

    now_s = time.monotonic() + QUIET_S
    authenticator.on_credentials_version(b"changed", now_s)
    assert authenticator.cached(digest_of(header), now_s=now_s) is None


async def test_older_reply_of_another_node_is_ignored(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]
) -> None:
    now_s = await remembered(stores, authenticator, publisher) + QUIET_S
    authenticator.on_credentials_version(b"changed", now_s)

    await read_version(stores, authenticator, at_s=now_s - 0.1)

    assert authenticator.cached(digest_of(publisher[1]), now_s=now_s) is None


async def test_key_is_read_again_after_a_while(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]
) -> None:
    now_s = await remembered(stores, authenticator, publisher) + LONG_S
    await read_version(stores, authenticator, at_s=now_s)

    assert authenticator.cached(digest_of(publisher[1]), now_s=now_s) is None


async def test_no_other_header_finds_a_cached_key(
    stores: Stores, authenticator: Authenticator, publisher: tuple[ApiKey, str]
) -> None:
    now_s = await remembered(stores, authenticator, publisher)
    key, header = publisher

    assert authenticator.cached(digest_of(header), now_s=now_s) == key
    for other in (
        header[:-1],
        header + "0",
        header.removeprefix("Bearer "),
        "",
        "Bearer " + new_secret(key.id),
    ):
        assert authenticator.cached(digest_of(other), now_s=now_s) is None


async def test_an_admin_token_beyond_ascii_is_its_bytes(stores: Stores) -> None:
    token = "op\u00e9rateur-\u6f22"
    authenticator = authenticator_of(stores, token)
    await authenticator.require_operator(request(f"Bearer {token}"))
    for other in (token + "\u00a0", token[:-1], "op\u00e9rateur"):
        with pytest.raises(Unauthenticated):
            await authenticator.require_operator(request(f"Bearer {other}"))
