"""The query and the credentials of a request (section 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from shared.model.api_keys import id_in

_BLANKS = " \t"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access token and a secret key; None for one that the request lacks."""

    access_token: str | None
    secret_key: str | None = field(repr=False)

    @property
    def given(self) -> bool:
        """Whether the request has any credential."""
        return self.access_token is not None or self.secret_key is not None

    @property
    def secret(self) -> str | None:
        """The API key's secret, if both are there and belong to one API key."""
        if self.access_token is None or self.secret_key is None:
            return None
        return self.secret_key if id_in(self.secret_key) == self.access_token else None


def query_of(query_string: bytes) -> dict[str, str]:
    """The query's values by name, the last of each, stripped: documentation prints its URLs over several
    lines.

    Bytes that are not UTF-8 become surrogates, which `parse_pattern` refuses.
    """
    text = query_string.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    return {name.strip(): value.strip() for name, value in pairs}


def credentials_offered(headers: Mapping[str, str], query: Mapping[str, str]) -> Credentials:
    """Headers win over the query, which is for browsers: they cannot set headers."""
    return Credentials(
        access_token=headers.get("x-api-accesstoken", "").strip(_BLANKS) or query.get("accessToken") or None,
        secret_key=headers.get("x-api-secretkey", "").strip(_BLANKS) or query.get("secretKey") or None,
    )
