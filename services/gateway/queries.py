"""Parameters in a request's query."""

from collections.abc import Sequence

from shared.model.errors import Invalid


def one_of(values: Sequence[str], given: str, field: str) -> str:
    """Raises Invalid."""
    if given not in values:
        raise Invalid(f"must be one of {', '.join(values)}", field=field)
    return given


def page_limit(given: str | None, *, usual: int, most: int) -> int:
    """How many a page has at most. Raises Invalid."""
    if given is None:
        return usual
    if not (given.isascii() and given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= most):
        raise Invalid(f"must be a number from 1 to {most}", field="limit")
    return int(given)
