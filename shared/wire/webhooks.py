"""The member `webhook` of a native channel: how it is called (docs/protocols/webhooks.md, "Settings")."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from shared.model.callbacks import LONGEST_URL, MOST_HEADERS, Callback, native_callback
from shared.model.errors import Invalid
from shared.model.webhooks import Format, Method, WebhookPolicy
from shared.wire.models import Closed, Count, field_at

_DAY_S = 24 * 3600
_Url = Annotated[
    str, Meta(examples=["https://example.com/hook"], extra_json_schema={"maxLength": LONGEST_URL})
]
_Timeout = Annotated[int, Meta(ge=1, le=60, description="For the whole response.")]
_Step = Annotated[int, Meta(ge=1, le=_DAY_S)]
_Backoff = Annotated[
    list[_Step],
    Meta(
        min_length=1,
        max_length=20,
        description="Seconds from a failed attempt to the next; the last repeats. Up to a fifth is added.",
    ),
]
_GiveUpAfter = Annotated[
    int,
    Meta(ge=1, le=30 * _DAY_S, description="An event is dropped when its attempts have failed for so long."),
]
_DisableAfter = Annotated[
    int,
    Meta(
        ge=1, le=90 * _DAY_S, description="The webhook is disabled when all attempts have failed for so long."
    ),
]
_MaxInFlight = Annotated[
    int, Meta(ge=1, le=100, description="Requests at once. With 1 the order is kept, with more it is not.")
]
_Rate = Annotated[int, Meta(ge=1, le=1000, description="Requests a second at most; null: no limit.")]
_MaxBatch = Annotated[int, Meta(ge=1, le=384, description="Events of a request, where it may have several.")]
_MaxBody = Annotated[
    int, Meta(ge=1024, le=1024 * 1024, description="A single event that is larger is sent alone.")
]
_AT_MOST = {"maxProperties": MOST_HEADERS}
_Headers = Annotated[
    dict[str, str], Meta(description="With the secret ones 32, and 8 KiB.", extra_json_schema=_AT_MOST)
]
_SecretHeaders = Annotated[
    dict[str, str], Meta(description="Headers whose values are never shown.", extra_json_schema=_AT_MOST)
]


class WebhookSettings(Closed, kw_only=True):
    """What is left out, or null, has its default in a new channel. In a PATCH what is left out stays."""

    method: Method | UnsetType | None = UNSET
    format: Format | UnsetType | None = UNSET
    headers: _Headers | UnsetType | None = UNSET
    secret_headers: _SecretHeaders | UnsetType | None = UNSET
    timeout_s: _Timeout | UnsetType | None = UNSET
    backoff: _Backoff | UnsetType | None = UNSET
    give_up_after_s: _GiveUpAfter | UnsetType | None = UNSET
    disable_after_s: _DisableAfter | UnsetType | None = UNSET
    max_in_flight: _MaxInFlight | UnsetType | None = UNSET
    rate_per_s: _Rate | UnsetType | None = UNSET
    max_batch: _MaxBatch | UnsetType | None = UNSET
    max_body_bytes: _MaxBody | UnsetType | None = UNSET


class NewWebhookTarget(WebhookSettings, kw_only=True):
    url: _Url


class ChangedWebhookTarget(WebhookSettings, kw_only=True):
    url: _Url | None = None


class WebhookTargetBody(Closed):
    """The webhook with all its settings."""

    url: _Url
    method: Method
    format: Format
    headers: dict[str, str]
    secret_headers: Annotated[list[str], Meta(description="The names; the values are never shown.")]
    timeout_s: _Timeout
    backoff: _Backoff
    give_up_after_s: _GiveUpAfter
    disable_after_s: _DisableAfter
    max_in_flight: _MaxInFlight
    rate_per_s: _Rate | None
    max_batch: _MaxBatch
    max_body_bytes: _MaxBody


class WebhookTestedBody(Closed):
    """What became of a test event."""

    accepted: bool
    webhook_id: str
    status: Annotated[int | None, Meta(description="null without a response.")]
    error: Annotated[str, Meta(description="In words; empty after a success.")]
    took_ms: Count
    response: Annotated[str, Meta(description="The first 2 KiB of the body that came back.")]


def response_text(body: bytes) -> str:
    """The beginning of a receiver's response, as text whatever it is."""
    return body.decode("utf-8", "replace")


# The members that a policy has too, and their names there.
_OF_POLICY = {
    "method": "method",
    "format": "format",
    "timeout_s": "timeout_s",
    "backoff": "backoff_s",
    "give_up_after_s": "give_up_after_s",
    "disable_after_s": "disable_after_s",
    "max_in_flight": "max_in_flight",
    "rate_per_s": "rate_per_s",
    "max_batch": "max_batch",
    "max_body_bytes": "max_body_bytes",
}


def new_webhook(posted: NewWebhookTarget) -> tuple[Callback, WebhookPolicy]:
    """Raises Invalid, naming the field below `webhook`."""
    return _changed(posted, posted.url, {}, {}, WebhookPolicy())


def changed_webhook(
    posted: ChangedWebhookTarget, before: Callback, policy: WebhookPolicy
) -> tuple[Callback, WebhookPolicy]:
    """What was given, and the rest as it was. Raises Invalid, naming the field below `webhook`."""
    url = before.url if posted.url is None else posted.url
    return _changed(posted, url, *_split(before, policy), policy)


def _changed(
    posted: WebhookSettings,
    url: str,
    headers: Mapping[str, str],
    secret: Mapping[str, str],
    policy: WebhookPolicy,
) -> tuple[Callback, WebhookPolicy]:
    if posted.headers is not UNSET:
        headers = posted.headers or {}
    if posted.secret_headers is not UNSET:
        secret = posted.secret_headers or {}
    given: dict[str, Any] = {
        name: getattr(posted, member)
        for member, name in _OF_POLICY.items()
        if getattr(posted, member) is not UNSET
    }
    if given.get("backoff_s") is not None:
        given["backoff_s"] = tuple(given["backoff_s"])
    try:
        checked = native_callback(url, headers, secret)
    except Invalid as error:
        [(name, message)] = error.fields
        raise Invalid(message, field=field_at("webhook", name)) from None
    changed = policy.changed({**given, "secret_headers": tuple(secret)})
    if changed.max_in_flight > 1 and changed.most_in_request > 1:
        message = (
            "above 1, each request must have one event: set format to cloudevents, or max_batch to 1, too"
        )
        raise Invalid(message, field="webhook.max_in_flight")
    return checked, changed


def _split(target: Callback, policy: WebhookPolicy) -> tuple[dict[str, str], dict[str, str]]:
    """The headers that are shown, and the secret ones."""
    secret = {name: target.headers[name] for name in policy.secret_headers if name in target.headers}
    return {name: value for name, value in target.headers.items() if name not in secret}, secret


def webhook_body(target: Callback, policy: WebhookPolicy) -> WebhookTargetBody:
    """As its account sees it."""
    headers, secret = _split(target, policy)
    return WebhookTargetBody(
        url=target.url,
        headers=headers,
        secret_headers=list(secret),
        method=policy.method,
        format=policy.format,
        timeout_s=policy.timeout_s,
        backoff=list(policy.backoff_s),
        give_up_after_s=policy.give_up_after_s,
        disable_after_s=policy.disable_after_s,
        max_in_flight=policy.max_in_flight,
        rate_per_s=policy.rate_per_s,
        max_batch=policy.max_batch,
        max_body_bytes=policy.max_body_bytes,
    )
