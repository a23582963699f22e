"""One check for every service and dialect: may an API key do this?"""

from collections.abc import Set

from shared.model.api_keys import Scope
from shared.model.errors import MissingScope


def require_scope(scopes: Set[Scope], scope: Scope) -> None:
    """Checks the scopes of an API key or a principal. Raises MissingScope."""
    if scope not in scopes:
        raise MissingScope(scope)
