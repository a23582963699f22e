"""Which tokens are refused, and why."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shared.clock import now_ms
from shared.model.api_keys import Account, new_id
from shared.model.errors import TokenRefused
from shared.model.token_keys import Algorithm, TokenKey, new_kid
from shared.native_tokens import Claims, NativeTokens
from shared.tokens import Principals
from tests.harness.tokens import claims, hs256, new_pair, pair, raw, signed
from tests.store.stores import Stores

SECRET = "s" * 40
HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass
class Scene:
    """An account with a key of each algorithm."""

    stores: Stores
    tokens: NativeTokens
    keys: dict[str, TokenKey]

    @property
    def kid(self) -> str:
        return self.keys["HS256"].kid

    def signed(self, algorithm: str = "HS256", /, **changed: Any) -> str:
        key = SECRET if algorithm == "HS256" else pair(algorithm).private
        return signed(claims(**changed), key, kid=self.keys[algorithm].kid, algorithm=algorithm)

    def with_header(self, **changed: Any) -> str:
        """None leaves a name out."""
        whole = {"alg": "HS256", "typ": "JWT", "kid": self.kid, **changed}
        header = {name: value for name, value in whole.items() if value is not None}
        return raw(header, claims(), hs256(SECRET))

    def with_payload(self, payload: bytes) -> str:
        return raw({"alg": "HS256", "kid": self.kid}, payload, hs256(SECRET))

    async def refusal(self, token: str) -> str:
        with pytest.raises(TokenRefused) as refused:
            await self.tokens.verify(token, now_ms=now_ms())
        return str(refused.value)


async def account(stores: Stores) -> str:
    made = new_id()
    await stores.api_keys.create_account(Account(id=made, name="a"))
    return made


@pytest.fixture
async def scene(stores: Stores) -> Scene:
    stores.account_id = await account(stores)
    keys = {}
    for algorithm in Algorithm:
        material = SECRET if algorithm is Algorithm.HS256 else pair(str(algorithm)).public
        keys[str(algorithm)] = await stores.token_keys.add(
            stores.account_id, algorithm, material, now_ms=now_ms()
        )
    return Scene(stores, NativeTokens(stores.token_keys), keys)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
async def test_a_token_of_each_algorithm_is_taken(scene: Scene, algorithm: str) -> None:
    now_s = int(time.time())
    token = scene.signed(algorithm, publish=["chat.*"], channels=["inbox"], iat=now_s, exp=now_s + 60)

    grant = await scene.tokens.verify(token, now_ms=now_ms())

    assert (grant.account_id, grant.kid) == (scene.stores.account_id, scene.keys[algorithm].kid)
    assert (grant.subject, grant.until_ms, grant.issued_ms) == ("user-1", (now_s + 60) * 1000, now_s * 1000)
    assert grant.may_read("news.today")
    assert not grant.may_read("chat.a")
    assert grant.may_publish("chat.a")
    assert not grant.may_publish("news.today")
    assert grant.may_open("inbox")
    assert not grant.may_open("outbox")


def payload(**changed: Any) -> Callable[[Scene], str]:
    return lambda scene: scene.signed(**changed)


def header(**changed: Any) -> Callable[[Scene], str]:
    return lambda scene: scene.with_header(**changed)


def now_s() -> float:
    return time.time()


def unsigned(scene: Scene) -> str:
    return raw({"alg": "none", "typ": "JWT", "kid": scene.kid}, claims(), lambda _: b"")


def confused(scene: Scene) -> str:
    """The public key as the secret of an HMAC: it is known to everybody."""
    public = pair("RS256").public
    return raw({"alg": "HS256", "kid": scene.keys["RS256"].kid}, claims(), hs256(public))


def with_twice(scene: Scene) -> str:
    now = int(now_s())
    text = f'{{"aud": "notify", "sub": "a", "exp": {now + 60}, "read": ["a"], "read": ["#"]}}'
    return scene.with_payload(text.encode())


def twice_in_the_header(scene: Scene) -> str:
    text = f'{{"alg": "HS256", "kid": "{scene.kid}", "kid": "{scene.kid}"}}'
    return raw(text.encode(), claims(), hs256(SECRET))


def by_another_key(algorithm: str) -> Callable[[Scene], str]:
    def token(scene: Scene) -> str:
        if algorithm == "HS256":
            return signed(claims(), "x" * 40, kid=scene.kid)
        stranger = new_pair(algorithm).private
        return signed(claims(), stranger, kid=scene.keys[algorithm].kid, algorithm=algorithm)

    return token


def changed_after_signing(scene: Scene) -> str:
    head, _, signature = scene.signed().split(".")
    _, other, _ = scene.signed(read=["#"]).split(".")
    return f"{head}.{other}.{signature}"


# What is wrong, the token, and the reason.
REFUSED: dict[str, tuple[Callable[[Scene], str], str]] = {
    "alg none": (unsigned, "no signed JSON Web Token"),
    "alg none with a signature": (
        lambda scene: raw({"alg": "none", "kid": scene.kid}, claims(), hs256(SECRET)),
        "its alg is not HS256",
    ),
    "alg in another case": (header(alg="hs256"), "its alg is not HS256"),
    "another alg of the same family": (header(alg="HS512"), "its alg is not HS256"),
    "no alg": (header(alg=None), "its header has no alg"),
    "alg of another type": (header(alg=["HS256"]), "its header has no alg"),
    "a public key as a secret": (confused, "its alg is not RS256"),
    "the key of another algorithm": (
        lambda scene: signed(claims(), SECRET, kid=scene.keys["ES256"].kid),
        "its alg is not ES256",
    ),
    "another secret": (by_another_key("HS256"), "its signature"),
    "another RSA key": (by_another_key("RS256"), "its signature"),
    "another EC key": (by_another_key("ES256"), "its signature"),
    "another Ed25519 key": (by_another_key("EdDSA"), "its signature"),
    "changed after signing": (changed_after_signing, "its signature"),
    "no kid": (header(kid=None), "the kid of its header"),
    "a kid of another type": (header(kid=17), "the kid of its header"),
    "a kid of another form": (header(kid="1"), "the kid of its header"),
    "a kid with a line end": (lambda scene: header(kid=f"{scene.kid}\n")(scene), "the kid of its header"),
    "an unknown kid": (
        lambda scene: signed(claims(), SECRET, kid=new_kid(scene.stores.account_id)),
        "its key is unknown",
    ),
    "the name of the server's key as kid": (header(kid="server"), "the kid of its header"),
    "crit": (header(crit=["exp"], exp=1), "crit or b64"),
    "an unencoded payload": (header(b64=False), "crit or b64"),
    "another typ": (header(typ="at+jwt"), "the typ of its header"),
    "a key in its header": (
        lambda scene: raw(
            {"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}, "kid": new_kid(scene.stores.account_id)},
            claims(),
            hs256("x"),
        ),
        "its key is unknown",
    ),
    "another audience": (payload(aud="other"), "its aud is not notify"),
    "other audiences": (payload(aud=["other", "notify2"]), "its aud is not notify"),
    "no audience": (payload(aud=None), "aud: is missing"),
    "an audience of another type": (payload(aud=["notify", 1]), "aud[1]"),
    "no exp": (payload(exp=None), "exp: is missing"),
    "expired": (lambda scene: scene.signed(iat=int(now_s()) - 9, exp=int(now_s()) - 1), "it has expired"),
    "a far exp": (
        lambda scene: scene.signed(exp=int(now_s()) + DAY_S + HOUR_S),
        "its exp is over 24 hours ahead",
    ),
    "a far exp without iat": (
        lambda scene: scene.signed(iat=None, exp=int(now_s()) + DAY_S + HOUR_S),
        "its exp is over 24 hours ahead",
    ),
    "an exp far behind its iat": (
        lambda scene: scene.signed(iat=int(now_s()) - DAY_S, exp=int(now_s()) + HOUR_S),
        "over 24 hours after its iat",
    ),
    "exp as a text": (payload(exp="2100-01-01"), "exp: must be"),
    "exp as true": (payload(exp=True), "exp: must be"),
    "an exp beyond all times": (payload(exp=10**18), "its exp is no time"),
    "an iat before all times": (payload(iat=-(10**18), exp=2e9 + 0.5), "its iat is no time"),
    "an exp as infinity": (
        lambda scene: scene.with_payload(b'{"aud": "notify", "sub": "a", "exp": Infinity}'),
        "not JSON",
    ),
    "an exp that overflows": (
        lambda scene: scene.with_payload(b'{"aud": "notify", "sub": "a", "exp": 1e999}'),
        "not JSON",
    ),
    "not valid yet": (lambda scene: scene.signed(nbf=int(now_s()) + 120), "it is not valid yet"),
    "an iat in the future": (lambda scene: scene.signed(iat=int(now_s()) + 120), "its iat is in the future"),
    "no sub": (payload(sub=None), "sub: is missing"),
    "an empty sub": (payload(sub=""), "sub: must have 1 to 128 bytes"),
    "a long sub": (payload(sub="é" * 65), "sub: must have 1 to 128 bytes"),
    "a sub of another type": (payload(sub=17), "sub: must be a string"),
    "half a character in its sub": (
        lambda scene: scene.with_payload(b'{"aud": "notify", "sub": "\\ud800", "exp": 1}'),
        "not JSON",
    ),
    "read as a text": (payload(read="news.#"), "read: must be"),
    "a read of another type": (payload(read=["a", 1]), "read[1]: must be a string"),
    "a malformed pattern": (payload(read=["a", "b*"]), "read[1]: may have * and #"),
    "an empty pattern": (payload(publish=[""]), "publish[0]: must be a string of 1 to 255"),
    "too many patterns": (payload(read=[f"a{n}" for n in range(101)]), "read: must be"),
    "too many patterns to publish": (payload(publish=[f"a{n}" for n in range(101)]), "publish: must be"),
    "too many channels": (payload(channels=[f"a{n}" for n in range(101)]), "channels: must be"),
    "a malformed channel": (payload(channels=["a\n"]), "channels[0]: must have printable"),
    "jti of another type": (payload(jti=1), "jti: must be"),
    "a long jti": (payload(jti="x" * 256), "jti: must be"),
    "a claim twice": (with_twice, "a name twice"),
    "a name twice in the header": (twice_in_the_header, "a name twice"),
    "a list in place of claims": (lambda scene: scene.with_payload(b"[1]"), "no JSON object"),
    "claims that are not JSON": (lambda scene: scene.with_payload(b"{"), "not JSON"),
    "deep claims": (lambda scene: scene.with_payload(b"[" * 3000 + b"]" * 3000), "not JSON"),
    "too large": (lambda scene: scene.signed(more="x" * 8192), "over 8192 bytes"),
    "four parts": (lambda scene: f"{scene.signed()}.a", "no signed JSON Web Token"),
    "padding": (lambda scene: f"{scene.signed()}==", "no signed JSON Web Token"),
    "another alphabet": (lambda scene: scene.signed().replace(".", ".+", 1), "no signed JSON Web Token"),
    "letters of other scripts": (lambda scene: f"{scene.signed()}\u0660", "no signed JSON Web Token"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_token_is_refused_with_its_reason(scene: Scene, what: str) -> None:
    make, reason = REFUSED[what]
    token = make(scene)

    refusal = await scene.refusal(token)

    assert reason in refusal
    assert SECRET not in refusal
    assert token not in refusal


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["other", "notify"]},
        {"nbf": int(time.time()) - 5, "jti": "1"},
        {"iat": None, "read": None},
        {"read": [], "publish": None, "channels": ["ch_" + "0" * 32]},
        {"more": {"a": [1, {"b": None}]}, "iat": time.time() - 0.25},
    ],
)
async def test_what_a_token_may_leave_out_or_add(scene: Scene, changed: dict[str, Any]) -> None:
    assert (await scene.tokens.verify(scene.signed(**changed), now_ms=now_ms())).subject == "user-1"


async def test_clocks_may_differ_by_half_a_minute(scene: Scene) -> None:
    at = int(now_s())
    token = scene.signed(iat=at, nbf=at, exp=at + DAY_S)
    for ahead_s in (-29, 0, 3600):
        await scene.tokens.verify(token, now_ms=(at + ahead_s) * 1000)
    for ahead_s in (-31, DAY_S):
        with pytest.raises(TokenRefused):
            await scene.tokens.verify(token, now_ms=(at + ahead_s) * 1000)


async def test_a_deleted_key_ends_its_tokens_only(scene: Scene) -> None:
    token, other = scene.signed(), scene.signed("ES256")
    await scene.tokens.verify(token, now_ms=now_ms())

    assert await scene.stores.token_keys.drop(scene.kid)

    assert "its key is unknown, or was deleted" in await scene.refusal(token)
    await scene.tokens.verify(other, now_ms=now_ms())


async def test_a_cut_off_refuses_what_was_issued_before(scene: Scene) -> None:
    early, without = scene.signed(iat=int(now_s())), scene.signed(iat=None)
    await scene.stores.token_keys.cut_off(scene.stores.account_id, "user-1")

    for token in (early, without):
        assert "signed out after it was issued" in await scene.refusal(token)
    cut_off_ms = await scene.stores.token_keys.cut_off_ms(scene.stores.account_id, "user-1", now_ms=now_ms())
    assert cut_off_ms is not None
    assert "signed out" in await scene.refusal(scene.signed(iat=cut_off_ms / 1000))
    later = scene.signed(iat=(cut_off_ms + 1) / 1000)
    assert (await scene.tokens.verify(later, now_ms=now_ms())).subject == "user-1"
    await scene.tokens.verify(scene.signed(sub="user-2", iat=None), now_ms=now_ms())


async def test_a_token_that_is_minted_after_a_cut_off_is_taken(scene: Scene) -> None:
    """Also by a gateway whose clock is a little behind."""
    for _ in range(5):
        await scene.stores.token_keys.cut_off(scene.stores.account_id, "user-1")
        token, _ = await scene.tokens.mint(
            scene.stores.account_id, Claims("user-1"), lifetime_s=60, now_ms=now_ms() - 50
        )
        await scene.tokens.verify(token, now_ms=now_ms())


async def test_a_minted_token_says_what_was_wanted(scene: Scene) -> None:
    now = now_ms()
    wanted = Claims("user-9", ["news.#"], ["chat.*"], ["inbox"])
    token, until_ms = await scene.tokens.mint(scene.stores.account_id, wanted, lifetime_s=60, now_ms=now)

    grant = await scene.tokens.verify(token, now_ms=now)

    assert (grant.read, grant.publish, grant.channels) == (("news.#",), ("chat.*",), ("inbox",))
    assert grant.until_ms == until_ms
    assert now + 59_000 < until_ms <= now + 60_000
    again, _ = await scene.tokens.mint(scene.stores.account_id, wanted, lifetime_s=60, now_ms=now)
    assert (await scene.tokens.verify(again, now_ms=now)).kid == grant.kid


async def test_keys_of_accounts_are_apart(scene: Scene) -> None:
    """A key of one account makes no token of another one, whatever the kid says."""
    other = await account(scene.stores)
    key = await scene.stores.token_keys.add(other, Algorithm.HS256, "o" * 40, now_ms=now_ms())
    grant = await scene.tokens.verify(signed(claims(), "o" * 40, kid=key.kid), now_ms=now_ms())
    assert grant.account_id == other

    assert "its signature" in await scene.refusal(signed(claims(), "o" * 40, kid=scene.kid))
    moved = f"tk_{scene.stores.account_id}{key.kid[-16:]}"
    assert "its key is unknown" in await scene.refusal(signed(claims(), "o" * 40, kid=moved))


async def test_tokens_of_a_dialect_are_no_native_tokens_nor_the_other_way_round(scene: Scene) -> None:
    principals = Principals(scene.stores.api_keys)
    _, secret = await scene.stores.api_key()
    principal = await principals.authenticate(secret, now_ms=now_ms())
    assert principal is not None
    foreign = await principals.token_for(principal, now_ms=now_ms())
    assert await principals.authenticate(foreign, now_ms=now_ms()) is not None

    assert "the kid of its header" in await scene.refusal(foreign)
    assert await principals.authenticate(scene.signed(), now_ms=now_ms()) is None
    # Nor with their key under one of our ids.
    signing_key = await scene.stores.api_keys.token_key(offered="")
    assert "its signature" in await scene.refusal(signed(claims(), signing_key, kid=scene.kid))


async def test_only_what_may_be_a_guess_counts_against_an_address(scene: Scene) -> None:
    counted: list[bool] = []

    async def count(find: Callable[[], Awaitable[Any]]) -> Any:
        found = await find()
        counted.append(found is None)
        return found

    expired = scene.signed(iat=None, exp=int(now_s()) - 1)
    unknown = signed(claims(), SECRET, kid=new_kid(scene.stores.account_id))
    for token in (expired, unknown, "a.b.c"):
        with pytest.raises(TokenRefused):
            await scene.tokens.look_up(token, count, now_ms=now_ms())
    await scene.tokens.look_up(scene.signed(), count, now_ms=now_ms())

    assert counted == [False, True, True, False]


async def test_memory_keeps_few_keys(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.native_tokens._KEPT", 2)
    for _ in range(2):
        for algorithm in ("HS256", "RS256", "ES256"):
            await scene.tokens.verify(scene.signed(algorithm), now_ms=now_ms())
    assert len(scene.tokens._parsed) == 2
