"""An API key's secret carries the key's id, and proves that key and no other."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.api_keys import ApiKey, Scope, hash_of, id_in, is_id, new_id, new_secret

ID = "0123456789abcdef0123456789abcdef"
GARBAGE = [
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


def key_of(secret: str) -> ApiKey:
    return ApiKey(
        id=ID,
        account_id=new_id(),
        name="receiver",
        scopes=frozenset({Scope.RECEIVE}),
        created_at_ms=1,
        secret_hash=hash_of(secret),
    )


def test_an_id_is_32_hex_characters_and_new_each_time() -> None:
    ids = {new_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(is_id(made) for made in ids)


@pytest.mark.parametrize("text", ["", ID[:-1], f"{ID}0", ID.upper(), f"{ID[:-1]}g", f"{ID}\n", f"{{{ID}}}"])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_a_secret_carries_its_keys_id() -> None:
    api_key_id = new_id()

    secret = new_secret(api_key_id)

    assert id_in(secret) == api_key_id
    assert len(secret.removeprefix("ak_")) >= 64


def test_two_secrets_of_one_key_share_nothing_but_the_id() -> None:
    first, second = (new_secret(ID).removeprefix(f"ak_{ID}") for _ in range(2))

    assert first != second
    assert len(first) == 48
    assert set(first + second) <= set(string.hexdigits)


@pytest.mark.parametrize("secret", GARBAGE)
def test_garbage_carries_no_id(secret: str) -> None:
    assert id_in(secret) is None


@given(st.text())
def test_no_text_breaks_the_look_at_a_secret(text: str) -> None:
    assert id_in(text) is None


def test_only_its_own_secret_proves_a_key() -> None:
    secret = new_secret(ID)
    key = key_of(secret)

    assert key.proves(secret)
    assert not key.proves(new_secret(ID))
    assert not key.proves("")
    assert not key.proves(secret[:-1])
    assert not key.proves(key.secret_hash), "a stolen hash would be as good as the secret"


def test_a_key_shows_no_secret() -> None:
    secret = new_secret(ID)

    assert secret[-48:] not in repr(key_of(secret))
