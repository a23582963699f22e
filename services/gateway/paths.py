"""Parameters in a request's path."""

from urllib.parse import unquote

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request

from shared.model.errors import Invalid


def in_path(request: Request, name: str) -> str:
    """The parameter, percent-decoded here: paths are matched as they were sent, so it may contain a slash.

    Raises Invalid: a byte that is not UTF-8 must not become another name.
    """
    given: str = request.path_params[name]
    try:
        return unquote(given, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("must be UTF-8, percent-encoded", field=name) from None


class _EntryConvertor(StringConvertor):
    """Only ids of stream entries: `retry` is another path."""

    regex = "[0-9]+-[0-9]+"


register_url_convertor("entry", _EntryConvertor())
