"""Native webhooks: delivered without a test request, signed, paused, and never ended for their failures."""

from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.harness.channels import AccountChannels
from tests.harness.dispatching import dispatching_with, hook, mine
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Call, Webhook, webhook

__all__ = ["hook", "mine"]

# A failing webhook ends after two seconds, unless it is a native one.
dispatching = dispatching_with(WEBHOOK_EXPIRY_S=2)


def order(number: int) -> dict[str, Any]:
    return {"topic": "orders.paid", "data": number}


def numbers(hook: Webhook) -> list[int]:
    return [event["data"] for event in hook.events]


async def create(mine: AccountChannels, hook: Webhook, **more: Any) -> str:
    target = {"url": hook.url, "headers": {"x-mine": "yes"}}
    made = await mine.create("webhook", bindings=["orders.#"], webhook=target, **more)
    return str(made["id"])


async def test_events_are_delivered_with_a_signature_of_the_channel(
    mine: AccountChannels, hook: Webhook
) -> None:
    channels = [await create(mine, hook), await create(mine, hook)]
    shown = [await mine.call("GET", f"/{each}/signing-secret") for each in channels]
    secrets = [each.json["signing_secret"] for each in shown]
    await mine.api.publish(mine.key, order(1))

    await wait_until(lambda: len(hook.calls) == 2)

    assert hook.tests == 0
    assert len(set(secrets)) == 2
    verified = 0
    for call in hook.calls:
        assert call.headers["x-mine"] == "yes"
        for secret in secrets:
            try:
                Verifier(secret).verify(call.body, dict(call.headers))
            except Exception:
                continue
            verified += 1
    assert verified == 2
    attempts: list[dict[str, Any]] = []

    async def is_recorded() -> bool:
        # Behind the response to the webhook's server.
        attempts[:] = (await mine.call("GET", f"/{channels[0]}/deliveries")).json["deliveries"]
        return bool(attempts)

    await wait_until(is_recorded)
    assert [attempt["status"] for attempt in attempts] == [204]


async def test_a_paused_webhook_delivers_what_came_meanwhile_when_it_is_resumed(
    mine: AccountChannels, hook: Webhook
) -> None:
    channel = await create(mine, hook)
    await mine.api.publish(mine.key, order(0))
    await wait_until(lambda: numbers(hook) == [0])
    await mine.do(channel, "pause")
    for number in range(1, 4):
        await mine.api.publish(mine.key, order(number))
    await mine.until(channel, state="paused", pending=3)
    assert numbers(hook) == [0]

    await mine.do(channel, "resume")

    await wait_until(lambda: numbers(hook) == [0, 1, 2, 3], what=lambda: numbers(hook))
    await mine.until(channel, state="active", pending=0)


async def test_another_url_gets_what_is_pending(mine: AccountChannels, hook: Webhook) -> None:
    async def refuse(_: Call) -> web.StreamResponse:
        return web.Response(status=500)

    async with webhook() as other:
        hook.answer = refuse
        channel = await create(mine, hook)
        await mine.api.publish(mine.key, order(5))
        await mine.until(channel, state="failing")

        change = {"webhook": {"url": other.url}}
        assert (await mine.call("PATCH", f"/{channel}", json=change)).status == 200

        await wait_until(lambda: numbers(other) == [5])
        assert other.calls[0].headers["x-mine"] == "yes"
        await mine.until(channel, state="active", pending=0)


async def test_a_native_webhook_that_fails_does_not_end(mine: AccountChannels, hook: Webhook) -> None:
    hook.says(500)
    stays = await create(mine, hook)
    expires = await create(mine, hook, name="n", expires_after_s=3600)
    await mine.api.publish(mine.key, order(1))

    async def has_failed_for_long() -> bool:
        for channel in (stays, expires):
            await mine.call("POST", f"/{channel}/deliveries/retry")
        return len(hook.calls) > 8 and hook.calls[-1].at_s - hook.calls[0].at_s > 4

    await wait_until(has_failed_for_long)

    for channel in (stays, expires):
        await mine.until(channel, state="failing", pending=1)
