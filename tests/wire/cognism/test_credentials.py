"""Credentials in headers and query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire.cognism.credentials import Credentials, credentials_offered, query_of

ID = "0f" * 16
SECRET = f"ak_{ID}{'ab' * 24}"
IN_HEADERS = {"x-api-accesstoken": "header-token", "x-api-secretkey": "header-secret"}
IN_QUERY = {"accessToken": "query-token", "secretKey": "query-secret"}


@pytest.mark.parametrize(
    ("headers", "query", "token", "secret"),
    [
        (IN_HEADERS, {}, "header-token", "header-secret"),
        ({}, IN_QUERY, "query-token", "query-secret"),
        (IN_HEADERS, IN_QUERY, "header-token", "header-secret"),
        ({"x-api-accesstoken": "header-token"}, IN_QUERY, "header-token", "query-secret"),
        ({"x-api-secretkey": "header-secret"}, IN_QUERY, "query-token", "header-secret"),
        ({"x-api-accesstoken": " ", "x-api-secretkey": ""}, IN_QUERY, "query-token", "query-secret"),
        ({}, {"accessToken": ""}, None, None),
        ({}, {"accesstoken": "x", "secretkey": "y"}, None, None),
        ({"authorization": f"Bearer {SECRET}"}, {}, None, None),
    ],
)
def test_headers_win_over_the_query(
    headers: dict[str, str], query: dict[str, str], token: str | None, secret: str | None
) -> None:
    assert credentials_offered(headers, query) == Credentials(token, secret)


@pytest.mark.parametrize(
    ("credentials", "given", "secret"),
    [
        (Credentials(ID, SECRET), True, SECRET),
        (Credentials(None, None), False, None),
        (Credentials(ID, None), True, None),
        (Credentials(None, SECRET), True, None),
        (Credentials("f0" * 16, SECRET), True, None),
        (Credentials(ID.upper(), SECRET), True, None),
        (Credentials(ID, ID), True, None),
        (Credentials(SECRET, SECRET), True, None),
    ],
)
def test_both_credentials_must_belong_to_one_key(
    credentials: Credentials, secret: str | None, *, given: bool
) -> None:
    assert (credentials.given, credentials.secret) == (given, secret)


def test_secret_is_not_in_the_repr() -> None:
    assert SECRET not in repr(Credentials(ID, SECRET))


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        (b"pattern=%7B%22type%22%3A%22310%22%7D", '{"type":"310"}'),
        (b'pattern={"type":"310"}', '{"type":"310"}'),
        (b"pattern=type=job-join|job-leave;org=IBM;", "type=job-join|job-leave;org=IBM;"),
        (b"accessToken=a%26b&%20%20%20pattern=org%3DIBM%20", "org=IBM"),
        (b"pattern=org=IBM+(Contract)", "org=IBM (Contract)"),
        (b"pattern=a&pattern=b", "b"),
        (b"pattern=", ""),
        (b"pattern=%C3%A9", "é"),
        ("pattern=é".encode(), "é"),
        (b"pattern=%E9", "\udce9"),
        (b"pattern=\xe9", "\udce9"),
    ],
)
def test_query_values(query: bytes, pattern: str) -> None:
    assert query_of(query)["pattern"] == pattern


@given(st.binary())
def test_every_query_is_parsed(query: bytes) -> None:
    credentials = credentials_offered({}, query_of(query))

    assert credentials.secret is None or credentials.given
