"""Tokens as a back end signs them, and as nobody should."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness.api import Api, ApiKey

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Pair:
    """A private key for one algorithm, and its public half in PEM."""

    algorithm: str
    private: Any
    public: str


@cache
def pair(algorithm: str) -> Pair:
    """One for each algorithm: RSA keys take a while to make."""
    return new_pair(algorithm)


def new_pair(algorithm: str) -> Pair:
    private: Any
    match algorithm:
        case "RS256":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case _:
            private = ed25519.Ed25519PrivateKey.generate()
    return Pair(algorithm, private, public_pem(private))


def public_pem(private: Any) -> str:
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a token for five minutes; None leaves one out."""
    now_s = int(time.time())
    usual = {"aud": "notify", "sub": "user-1", "iat": now_s, "exp": now_s + 300, "read": ["news.#"]}
    return {name: value for name, value in (usual | changed).items() if value is not None}


def signed(said: Mapping[str, Any], key: Any, *, kid: str, algorithm: str = "HS256", **header: Any) -> str:
    """As libraries do it."""
    return jwt.encode(dict(said), key, algorithm=algorithm, headers={"kid": kid, **header})


def raw(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], sign: Sign) -> str:
    """Any bytes in the place of header and payload."""
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, payload)]
    head = b".".join(map(encoded, texts))
    return b".".join([head, encoded(sign(head))]).decode()


def hs256(secret: str) -> Sign:
    return lambda text: hmac.digest(secret.encode(), text, hashlib.sha256)


def encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


@dataclass(frozen=True)
class Issuer:
    """A back end with a secret of its own: signs tokens of one account."""

    kid: str
    secret: str

    def token(self, **changed: Any) -> str:
        return signed(claims(**changed), self.secret, kid=self.kid)


async def issuer(api: Api, key: ApiKey) -> Issuer:
    """With a new token key; `key` has the scope `admin`."""
    made = await api.call("POST", "/v1/token-keys", key=key, json={"algorithm": "HS256"})
    assert made.status == 201, made.text
    return Issuer(made.json["kid"], made.json["secret"])
