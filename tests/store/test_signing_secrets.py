"""Signing secrets in Redis: the first one, rotations, ends, and what an older release has written."""

import pytest

from shared.model.errors import KeyRevoked
from tests.store.stores import Stores


async def test_the_first_secret_stays_until_the_key_is_revoked(stores: Stores) -> None:
    key, _ = await stores.api_key()

    [first] = await stores.signing_secrets.made(key.id, offered="whsec_a")
    assert (first.text, first.ends_at_ms) == ("whsec_a", None)
    assert await stores.signing_secrets.made(key.id, offered="whsec_b") == [first]
    await stores.api_keys.revoke(key)
    with pytest.raises(KeyRevoked):
        await stores.signing_secrets.made(key.id, offered="whsec_c")
