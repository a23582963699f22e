"""The policy of a native webhook: how it is kept, changed, and what its backoff says."""

import pytest

from shared.model.webhooks import Format, Method, WebhookPolicy

OTHER = WebhookPolicy(
    method=Method.PUT,
    format=Format.PELION,
    timeout_s=3,
    backoff_s=(1, 2),
    give_up_after_s=60,
    disable_after_s=120,
    max_in_flight=20,
    rate_per_s=7,
    max_batch=5,
    max_body_bytes=1024,
    secret_headers=("x-token",),
)


def test_defaults() -> None:
    day_s = 24 * 3600
    policy = WebhookPolicy()
    assert (policy.method, policy.format, policy.max_in_flight) == ("POST", "cloudevents", 1)
    assert policy.backoff_s == (5, 30, 120, 300, 600)
    assert (policy.give_up_after_s, policy.disable_after_s) == (3 * day_s, 5 * day_s)
    assert policy.rate_per_s is None


def test_a_change_keeps_what_it_leaves_out_and_none_brings_the_default_back() -> None:
    after = OTHER.changed({"timeout_s": 9, "backoff_s": None, "rate_per_s": None, "format": None})

    assert (after.timeout_s, after.backoff_s, after.rate_per_s) == (9, WebhookPolicy().backoff_s, None)
    assert after.format is Format.CLOUDEVENTS
    assert (after.method, after.give_up_after_s, after.max_batch) == (Method.PUT, 60, 5)


@pytest.mark.parametrize(
    ("failed_attempts", "chance", "delay_ms"),
    [
        (1, 0.0, 5_000),
        (1, 1.0, 6_000),
        (2, 0.5, 33_000),
        (3, 0.0, 120_000),
        (4, 0.0, 300_000),
        (5, 0.0, 600_000),
        (6, 0.0, 600_000),
        (10_000, 1.0, 720_000),
        (0, 0.0, 5_000),
    ],
)
def test_the_backoff_follows_its_list_and_repeats_its_last_step(
    failed_attempts: int, chance: float, delay_ms: int
) -> None:
    assert WebhookPolicy().delay_ms(failed_attempts, chance=lambda: chance) == delay_ms


@pytest.mark.parametrize(
    ("wanted", "most"), [(Format.CLOUDEVENTS, 1), (Format.CLOUDEVENTS_BATCH, 50), (Format.PELION, 50)]
)
def test_only_batches_hold_more_than_one(wanted: Format, most: int) -> None:
    assert WebhookPolicy(format=wanted, max_batch=50).most_in_request == most
