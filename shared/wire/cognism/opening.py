"""What a request of this dialect says in its query and headers (section 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from shared.model.api_keys import id_in


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request proves itself by; None for what it does not say."""

    access_token: str | None
    secret_key: str | None = field(repr=False)

    @property
    def given(self) -> bool:
        """Does the request say anything of who sends it?"""
        return self.access_token is not None or self.secret_key is not None

    @property
    def secret(self) -> str | None:
        """The API key's secret, if both are there and speak of one API key."""
        if self.access_token is None or self.secret_key is None:
            return None
        return self.secret_key if id_in(self.secret_key) == self.access_token else None


def query_of(query_string: bytes) -> dict[str, str]:
    """The query's values by name, the last of each; blanks around them go, as URLs are printed in lines.

    What is not UTF-8 stays recognisable as such, for whoever reads the value.
    """
    text = query_string.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    return {name.strip(): value.strip() for name, value in pairs}


def credentials_offered(headers: Mapping[str, str], query: Mapping[str, str]) -> Credentials:
    """The headers win, the query fills in what they lack: a browser cannot set headers."""
    return Credentials(
        access_token=headers.get("x-api-accesstoken", "").strip() or query.get("accessToken") or None,
        secret_key=headers.get("x-api-secretkey", "").strip() or query.get("secretKey") or None,
    )
