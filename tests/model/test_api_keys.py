"""An API key's secret contains the key's id and authenticates that key only."""

import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.api_keys import ApiKey, Scope, hash_of, id_in, is_id, new_id, new_secret

ID = "0123456789abcdef0123456789abcdef"
MALFORMED = [
    "",
    "ak_",
    ID,
    f"ak_{ID}",
    f"ak_{ID}{'0' * 47}",
    f"ak_{ID}{'0' * 49}",
    f"ak_{ID.upper()}{'0' * 48}",
    f"ak_{ID}{'g' * 48}",
    f"AK_{ID}{'0' * 48}",
    f"bk_{ID}{'0' * 48}",
    f" ak_{ID}{'0' * 48}",
    f"ak_{ID}{'0' * 48}\n",
    f"ak_{ID}{'٠' * 48}",
    f"pelion_ak_{ID}{'0' * 48}",
]


def key_of(secret: str, **more: Any) -> ApiKey:
    return ApiKey(
        id=ID,
        account_id=new_id(),
        name="receiver",
        scopes=frozenset({Scope.RECEIVE}),
        created_at_ms=1,
        secret_hash=hash_of(secret),
        **more,
    )


def test_ids_are_32_hex_characters_and_unique() -> None:
    ids = {new_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(is_id(made) for made in ids)


@pytest.mark.parametrize("text", ["", ID[:-1], f"{ID}0", ID.upper(), f"{ID[:-1]}g", f"{ID}\n", f"{{{ID}}}"])
def test_invalid_ids(text: str) -> None:
    assert not is_id(text)


def test_secret_contains_the_id_of_its_key() -> None:
    api_key_id = new_id()

    secret = new_secret(api_key_id)

    assert id_in(secret) == api_key_id
    assert len(secret.removeprefix("ak_")) >= 64


def test_secrets_of_one_key_share_only_the_id() -> None:
    first, second = (new_secret(ID).removeprefix(f"ak_{ID}") for _ in range(2))

    assert first != second
    assert len(first) == 48
    assert set(first + second) <= set(string.hexdigits)


@pytest.mark.parametrize("secret", MALFORMED)
def test_malformed_secrets_have_no_id(secret: str) -> None:
    assert id_in(secret) is None


@given(st.text())
def test_arbitrary_text_has_no_id(text: str) -> None:
    assert id_in(text) is None


def test_key_accepts_only_its_own_secret() -> None:
    secret = new_secret(ID)
    key = key_of(secret)

    assert key.accepts(secret, now_ms=1)
    assert not key.accepts(new_secret(ID), now_ms=1)
    assert not key.accepts("", now_ms=1)
    assert not key.accepts(secret[:-1], now_ms=1)
    assert not key.accepts(key.secret_hash, now_ms=1), "a stolen hash would be as good as the secret"


def test_secret_is_not_in_the_repr() -> None:
    secret = new_secret(ID)

    assert secret[-48:] not in repr(key_of(secret))


def test_expired_key_accepts_no_secret() -> None:
    secret = new_secret(ID)
    key = key_of(secret, expires_at_ms=1000)

    assert key.accepts(secret, now_ms=999)
    assert not key.accepts(secret, now_ms=1000)


def test_old_secret_is_valid_until_its_end_after_a_rotation() -> None:
    old, new = new_secret(ID), new_secret(ID)
    key = key_of(new, old_secret_hash=hash_of(old), old_valid_until_ms=1000)

    assert key.accepts(old, now_ms=999)
    assert not key.accepts(old, now_ms=1000)
    assert key.accepts(new, now_ms=999)
    assert key.accepts(new, now_ms=1000)
    assert (key.old_secret_until_ms(now_ms=999), key.old_secret_until_ms(now_ms=1000)) == (1000, None)


def test_secrets_expire_with_their_key() -> None:
    old, new = new_secret(ID), new_secret(ID)
    key = key_of(new, old_secret_hash=hash_of(old), old_valid_until_ms=3000, expires_at_ms=2000)

    assert key.valid_until_ms(hash_of(old)) == key.valid_until_ms(hash_of(new)) == 2000


def test_valid_until() -> None:
    old, new = new_secret(ID), new_secret(ID)
    key = key_of(new, old_secret_hash=hash_of(old), old_valid_until_ms=1000)

    assert key.valid_until_ms(hash_of(new)) == math.inf
    assert key.valid_until_ms(hash_of(old)) == 1000
    assert key.valid_until_ms(hash_of(new_secret(ID))) == 0
    assert key_of(new).valid_until_ms("0" * 64) == 0, "the placeholder for a missing hash is no secret"
