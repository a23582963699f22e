"""POST /v1/channels/{channel}/test: one signed request to a native webhook, whose answer is shown.

docs/protocols/webhooks.md, "A test event"
"""

import secrets
from functools import partial

import orjson
from starlette.requests import Request

from services.gateway.channel_access import NAMED_CHANNEL, OneChannel, no_such_channel, present
from services.gateway.channel_views import OF_ACCOUNT
from services.gateway.context import context_of
from services.gateway.endpoint_verification import WebhookTest, disconnected
from services.gateway.operations import Operation
from shared.clock import now_ms
from shared.model.account_channels import AccountChannel, shown_id
from shared.model.callbacks import Callback
from shared.model.deliveries import answer_without_secrets
from shared.model.errors import KeyRevoked
from shared.model.events import Notification
from shared.model.signing_secrets import new_secret
from shared.model.topics import SYSTEM
from shared.model.webhook_answers import SUCCESS, judged
from shared.model.webhooks import WebhookPolicy
from shared.outbound.client import Attempt
from shared.runtime.http.responses import Problem
from shared.wire.webhook_bodies import BodyLimits, body_of, with_content_type
from shared.wire.webhooks import WebhookTestedBody, response_text


@Operation("POST /v1/channels/{channel}/test", NAMED_CHANNEL, errors=(400, 409, 429), parameters=[OF_ACCOUNT])
async def test_webhook(request: Request, one: OneChannel) -> WebhookTestedBody:
    """Sends a signed test event to a native webhook, and shows what came back. It changes nothing."""
    channel, context = await present(request, one), context_of(request)
    target, policy = _target(channel)
    try:
        made = await context.stores.signing_secrets.made(one.id, offered=new_secret())
    except KeyRevoked:
        raise no_such_channel() from None
    webhook_id = f"test_{secrets.token_hex(16)}"
    wanted = WebhookTest(
        holder=f"channel {one.id}",
        account=one.record.account_id,
        webhook_id=webhook_id,
        callback=Callback(target.url, with_content_type(target.headers, policy)),
        body=_body(one, policy, webhook_id),
        signing_secrets=[each.text for each in made],
        method=policy.method,
        timeout_s=policy.timeout_s,
        success=SUCCESS,
        certificate=await context.stores.client_certificates.read(one.id),
    )
    attempt = await context.endpoint_verifier.test(wanted, disconnected=partial(disconnected, request))
    # A receiver may send back what it got, and these headers are never read back.
    body = answer_without_secrets(attempt.response_body, target.headers, secret_headers=policy.secret_headers)
    return _tested(attempt, webhook_id, body)


def _target(channel: AccountChannel) -> tuple[Callback, WebhookPolicy]:
    """Raises Problem(409)."""
    if channel.callback is None:
        raise Problem(409, "the channel is no webhook")
    if channel.policy is None:
        raise Problem(409, "the webhook belongs to an API key: it is tested whenever it is registered")
    return channel.callback, channel.policy


def _body(one: OneChannel, policy: WebhookPolicy, event_id: str) -> bytes:
    data = orjson.dumps({"channel": shown_id(one.id), "name": one.record.name or None})
    event = Notification(f"{now_ms()}-0", event_id, f"{SYSTEM}.webhook.test", data)
    limits = BodyLimits(policy.max_body_bytes, 1)
    return body_of([event], policy, account_id=one.record.account_id, limits=limits).text


def _tested(attempt: Attempt, webhook_id: str, body: bytes) -> WebhookTestedBody:
    answer = judged(
        attempt.status, location=attempt.location, retry_after=attempt.retry_after, now_ms=now_ms()
    )
    error = ""
    if not answer.is_accepted:
        error = (
            answer.words or attempt.detail or attempt.error or f"the status {attempt.status} is no success"
        )
    return WebhookTestedBody(
        accepted=answer.is_accepted,
        webhook_id=webhook_id,
        status=attempt.status,
        error=error,
        took_ms=attempt.took_ms,
        response=response_text(body),
    )
