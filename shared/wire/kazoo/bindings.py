"""Bindings of Kazoo clients, and their translation to topics and to Kazoo's keys (sections 5 and 6).

`FORMS` is the table of bindings: which are listed, which are accepted, and the topic pattern of each.
`_KINDS` translates a topic or pattern to a Kazoo key.
"""

import re
from dataclasses import dataclass
from itertools import product

from shared.model import topics
from shared.model.sessions import EVERY_ACCOUNT

ONE = topics.ONE
WILDCARDS = frozenset({topics.ONE, topics.ANY})
MAX_LENGTH = topics.MAX_LENGTH
_NO_BLANKS = re.compile(r"[^\s\x00-\x1f\x7f]*")

CALL_EVENTS = (
    *("CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_DESTROY", "CHANNEL_HOLD", "CHANNEL_UNHOLD"),
    *("CHANNEL_BRIDGE", "PARK_PARKED", "PARK_RETRIEVED", "PARK_ABANDONED"),
)
CONFERENCE_EVENTS = (
    *("undeaf-member", "deaf-member", "unmute-member", "mute-member", "start-talking", "stop-talking"),
    *("del-member", "add-member", "unlock", "lock", "conference-destroy", "conference-create"),
)
ACTIONS = ("doc_created", "doc_edited", "doc_deleted")
DOCUMENTS = (
    *("account", "callflow", "device", "faxbox", "media", "user", "vmbox"),
    *("fax", "mailbox_message", "call_recording"),
)
# Kazoo stores these in one database per month.
_MONTHLY = frozenset({"fax", "mailbox_message"})

_Word = str | tuple[str, ...]
"""A word of a form: a literal, one of a tuple, or any word for a name in braces."""


class Refused(Exception):
    """No form allows the binding; the message is Kazoo's."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to spell a binding.

    `topic` is its topic pattern; the numbers stand for the client's words. `unsupported` is the error for a
    word outside a tuple; with `star_allowed`, `*` stands for all of the tuple. A conference id must be given,
    unless `every_conference` allows `*` to master accounts.
    """

    words: tuple[_Word, ...]
    topic: str
    unsupported: str = ""
    star_allowed: bool = True
    every_conference: bool = False
    listed: bool = True
    repeated_without_module: bool = False


_CONFERENCE = "{CONFERENCE_ID}"

FORMS: dict[str, tuple[Form, ...]] = {
    "call": (Form((CALL_EVENTS, "{CALL_ID}"), "call.{0}.{1}", "event {0} not supported"),),
    "conference": (
        Form(("event", _CONFERENCE, "{CALL_ID}"), "conference.event.*.{1}.{2}"),
        Form(("command", _CONFERENCE), "conference.command.{1}"),
        Form(
            ("event", CONFERENCE_EVENTS, _CONFERENCE, "{CALL_ID}"),
            "conference.event.{1}.{2}.{3}",
            "Unsupported conference event {1}",
            every_conference=True,
            listed=False,
        ),
    ),
    "fax": (
        Form(("status", "{FAX_ID}"), "fax.status.{1}"),
        Form(("object", "{ACTION}"), "object.{1}.fax.*"),
    ),
    "object": (Form((ACTIONS, DOCUMENTS), "object.{0}.{1}.*", "event {0}.{1} not supported"),),
    "presence": (
        Form(
            (("dialog", "mwi_updates", "update"), "{ID}"),
            "presence.{0}.{1}",
            "event {0} not supported",
            star_allowed=False,
            listed=False,
            repeated_without_module=True,
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Binding:
    """A valid binding: its spelling in replies, and its topic pattern.

    `of_every_conference` bindings are for master accounts only.
    """

    requested: str
    pattern: str
    of_every_conference: bool = False


def listing() -> dict[str, list[str]]:
    """The listed bindings by module."""
    names: dict[str, list[str]] = {}
    for module, forms in FORMS.items():
        for form in forms:
            if form.listed:
                choices = [(word,) if isinstance(word, str) else word for word in form.words]
                names.setdefault(module, []).extend(".".join((module, *words)) for words in product(*choices))
    return names


def parse_binding(text: str) -> Binding | None:
    """A client's binding; None for an unknown module. Raises Refused."""
    module, *words = text.split(".")
    forms = FORMS.get(module)
    if forms is None:
        return None
    form = next((form for form in forms if _has_shape(words, form)), None)
    # A text longer than any topic, or with blanks, could never match.
    if form is None or len(text) > MAX_LENGTH or not _NO_BLANKS.fullmatch(text):
        given = ", ".join(words)
        shortened = given if len(given) <= MAX_LENGTH else given[:MAX_LENGTH] + "…"
        raise Refused(f"invalid format for {module} subscription : {shortened}")
    if not all(_is_one_of(word, wanted, form) for word, wanted in zip(words, form.words, strict=True)):
        raise Refused(form.unsupported.format(*words))
    conferences = [word for word, wanted in zip(words, form.words, strict=True) if wanted == _CONFERENCE]
    is_open = any(word in WILDCARDS or not word for word in conferences)
    if is_open and not (form.every_conference and conferences == [ONE]):
        raise Refused("ConferenceId required")
    return Binding(
        requested=".".join(words) if form.repeated_without_module else text,
        pattern=form.topic.format(*words),
        of_every_conference=is_open,
    )


def _has_shape(words: list[str], form: Form) -> bool:
    if len(words) != len(form.words):
        return False
    return all(
        word == wanted or not isinstance(wanted, str) or wanted.startswith("{")
        for word, wanted in zip(words, form.words, strict=True)
    )


def _is_one_of(word: str, wanted: _Word, form: Form) -> bool:
    return isinstance(wanted, str) or word in wanted or (word == ONE and form.star_allowed)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a topic becomes a Kazoo key: the account's position, and the event's name.

    `name` is the name itself, or the position of the word in the topic.
    """

    account_at: int | None
    name: str | int


_KINDS: dict[tuple[str, ...], _Kind] = {
    ("call",): _Kind(1, 1),
    ("conference", "event"): _Kind(3, "event"),
    ("conference", "command"): _Kind(None, "command"),
    ("fax", "status"): _Kind(2, "status"),
    ("object",): _Kind(2, 1),
    ("presence",): _Kind(2, 1),
}


def event_name(topic: str) -> str:
    """The name of an event whose publisher gave none."""
    words = topics.words(topic)
    kind = _kind_of(words)
    if kind is None:
        return topic
    if isinstance(kind.name, str):
        return kind.name
    return words[kind.name] if kind.name < len(words) else ""


def routing_key(topic: str, account_id: str, *, month: str) -> str:
    """The key under which Kazoo would have sent this event; `month` is YYYYMM."""
    return _key(topics.words(topic), account_id, _database(topic, account_id, month))


def subscription_key(pattern: str, account_id: str, *, topic: str, month: str) -> str:
    """The key of a binding's pattern, as sent with an event of this topic.

    Kazoo has a key per call event, so the key names the event and not the binding's wildcard.
    """
    words = topics.words(pattern)
    if words[0] == "call" and words[1] == ONE:
        words[1] = event_name(topic)
    return _key(words, account_id, _database(topic, account_id, month))


def _key(words: list[str], account_id: str, database: str) -> str:
    kind = _kind_of(words)
    if kind is None or kind.account_at is None:
        return ".".join(words)
    account = database if words[0] == "object" else account_id
    key = [*words[: kind.account_at], account, *words[kind.account_at :]]
    # These keys lack the module: doc_created.{database}.user.{id}, dialog.{realm}.{id}.
    return ".".join(key[1:] if words[0] in ("object", "presence") else key)


def _kind_of(words: list[str]) -> _Kind | None:
    return _KINDS.get(tuple(words[:1])) or _KINDS.get(tuple(words[:2]))


def _database(topic: str, account_id: str, month: str) -> str:
    if account_id == EVERY_ACCOUNT:
        return EVERY_ACCOUNT
    document = topics.words(topic)[2:3]
    name = f"account%2F{account_id[:2]}%2F{account_id[2:4]}%2F{account_id[4:]}"
    return f"{name}-{month}" if _MONTHLY.intersection(document) else name
