"""A token allows what its claims name, whatever they are, and any other bytes are refused in one way."""

import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from shared.model import topics
from shared.model.errors import TokenRefused
from shared.model.grants import LONGEST_S, SKEW_S, Grant
from shared.model.token_keys import new_kid
from shared.wire.native_tokens import grant_in, head_of
from tests.harness.tokens import encoded

KID = new_kid("0" * 32)
NOW_S = 1_800_000_000
WORDS = st.sampled_from(["a", "b", "system", "device", "*", "#", "", "é"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
NAMES = st.text(max_size=5)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | TOPICS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TIMES = st.integers(NOW_S - 2 * LONGEST_S, NOW_S + 2 * LONGEST_S) | st.floats(NOW_S - 60.0, NOW_S + 90_000.0)
# What is mostly right, so that many of them are taken.
CLAIMS = st.fixed_dictionaries(
    {"aud": st.just("notify") | ANY_JSON, "sub": st.just("user") | ANY_JSON, "exp": TIMES | ANY_JSON},
    optional={
        "read": st.lists(TOPICS, max_size=4) | ANY_JSON,
        "publish": st.lists(TOPICS, max_size=4) | ANY_JSON,
        "channels": st.lists(NAMES, max_size=3) | ANY_JSON,
        "iat": TIMES | ANY_JSON,
        "nbf": TIMES | ANY_JSON,
        "jti": ANY_JSON,
        "scope": ANY_JSON,
    },
)


def taken(claims: Any) -> Grant | None:
    payload = json.dumps(claims).encode()
    try:
        return grant_in(payload, kid=KID, now_ms=NOW_S * 1000)
    except TokenRefused:
        return None


@given(CLAIMS, TOPICS)
@example({"aud": "notify", "sub": "u", "exp": NOW_S + 9, "read": ["#"]}, "system.a")
@example({"aud": "notify", "sub": "u", "exp": NOW_S + 9, "publish": ["a.#"]}, "a")
@example({"aud": "notify", "sub": "u", "exp": NOW_S + 9, "read": ["a.*"], "publish": ["b"]}, "b")
def test_a_token_reads_and_publishes_only_what_its_patterns_name(claims: dict[str, Any], topic: str) -> None:
    grant = taken(claims)
    if grant is None:
        return
    for claim, may in (("read", grant.may_read), ("publish", grant.may_publish)):
        patterns = claims.get(claim) or []
        assert may(topic) == any(topics.matches(pattern, topic) for pattern in patterns)
    for name in ("a", *(claims.get("channels") or [])):
        assert grant.may_open(name) == (name in (claims.get("channels") or []))
    assert claims["aud"] == "notify" or "notify" in claims["aud"]
    assert grant.subject == claims["sub"]
    assert NOW_S * 1000 < grant.until_ms <= (NOW_S + SKEW_S + LONGEST_S) * 1000
    if claims.get("iat") is not None:
        assert claims["exp"] - LONGEST_S <= claims["iat"] <= NOW_S + SKEW_S
    assert math.isfinite(grant.issued_ms or 0)


def refused_by(read: Callable[[], object]) -> TokenRefused | None:
    try:
        read()
    except TokenRefused as refused:
        return refused
    return None


@given(st.binary(max_size=200) | CLAIMS.map(lambda claims: json.dumps(claims).encode()))
def test_any_payload_is_taken_or_refused(payload: bytes) -> None:
    refused = refused_by(lambda: grant_in(payload, kid=KID, now_ms=NOW_S * 1000))
    assert refused is None or refused.is_genuine


HEADERS = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64"]), ANY_JSON | st.just(KID))
HEADS = HEADERS.map(lambda header: encoded(json.dumps(header).encode()).decode())


@given(st.text(max_size=60) | HEADS.map(lambda head: f"{head}.e.c"))
@example("..")
@example("e30.e30.e30")
def test_any_text_has_a_head_or_is_refused(token: str) -> None:
    refused = refused_by(lambda: head_of(token))
    assert head_of(token).kid == KID if refused is None else not refused.is_genuine
