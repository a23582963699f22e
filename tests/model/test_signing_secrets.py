"""Signing secrets: what a new one is."""

import base64

import pytest

from shared.model.signing_secrets import PREFIXES, SecretKind, SigningSecret, new_secret


@pytest.mark.parametrize("kind", SecretKind)
def test_a_new_secret_has_256_random_bits(kind: SecretKind) -> None:
    made = {new_secret(kind) for _ in range(20)}

    assert len(made) == 20
    assert all(len(base64.b64decode(each.removeprefix(PREFIXES[kind]), validate=True)) == 32 for each in made)


@pytest.mark.parametrize("kind", SecretKind)
def test_a_repr_does_not_show_it(kind: SecretKind) -> None:
    secret = SigningSecret("sec_1", 0, None, new_secret(kind))

    assert secret.kind is kind
    assert secret.text.removeprefix(PREFIXES[kind]) not in repr(secret)
