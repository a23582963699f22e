"""The names of settings in the environment, with those that settings had before."""

import difflib
from collections.abc import Collection, Mapping

PREFIX = "NOTIFY_"
FORMER = {"allowed_origins": "NOTIFY_CORS_ORIGINS"}
"""By field: a name that a setting had before, which is read in place of its own."""
# Set by systemd for every service of Type=notify.
_NOT_OURS = frozenset({"NOTIFY_SOCKET"})


def variable(field: str) -> str:
    """The name of the setting `field` in the environment."""
    return PREFIX + field.upper()


def given_name(field: str, environ: Mapping[str, str]) -> str | None:
    """The name by which `environ` has a value of the setting; its own wins. None: it has none."""
    return next((name for name in (variable(field), FORMER.get(field, "")) if environ.get(name, "")), None)


def contradictions(environ: Mapping[str, str]) -> list[str]:
    """A message for each setting that has one value by its name and another one by its former name."""
    pairs = [(variable(field), former) for field, former in FORMER.items()]
    return [
        f"{former}: should not differ from {name}, whose former name it is"
        for name, former in pairs
        if environ.get(name) and environ.get(former) and environ[name] != environ[former]
    ]


def unknown(environ: Mapping[str, str], fields: Collection[str]) -> list[str]:
    """Variables in `environ` with our prefix that are no settings, each with the nearest known name."""
    known = [variable(field) for field in fields]
    ours = {*known, *FORMER.values(), *_NOT_OURS}
    found = []
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in ours:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            found.append(f"{name} (did you mean {nearest[0]}?)" if nearest else name)
    return found
