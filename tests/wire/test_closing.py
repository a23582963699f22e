"""Every close_reason that a client can be told, in both tables of close codes."""

import pytest

from shared.model.channels import CloseReason
from shared.wire.pelion.closing import close_code, close_text, refuses_at_handshake

# The client has gone, or hears nothing: no close frame is sent.
UNSAID = {CloseReason.CLIENT_GONE, CloseReason.STALLED, CloseReason.IDLE}
SAID = sorted(set(CloseReason) - UNSAID)

TABLES = {
    2019: {
        CloseReason.TAKEN_OVER: 1001,
        CloseReason.CHANNEL_DELETED: 1001,
        CloseReason.STOPPING: 1001,
        CloseReason.KEY_REVOKED: 1008,
        CloseReason.KEY_EXPIRED: 1008,
        CloseReason.BAD_KEY: 1008,
        CloseReason.NO_CHANNEL: 1011,
        CloseReason.REDIS_AWAY: 1011,
        CloseReason.UNEXPECTED: 1011,
    },
    2020: {
        CloseReason.TAKEN_OVER: 1001,
        CloseReason.CHANNEL_DELETED: 1000,
        CloseReason.STOPPING: 1012,
        CloseReason.KEY_REVOKED: 1008,
        CloseReason.KEY_EXPIRED: 1008,
        CloseReason.BAD_KEY: 1008,
        CloseReason.NO_CHANNEL: 1011,
        CloseReason.REDIS_AWAY: 1011,
        CloseReason.UNEXPECTED: 1011,
    },
}


@pytest.mark.parametrize("codes", TABLES)
@pytest.mark.parametrize("close_reason", SAID)
def test_the_code_of_an_ending(close_reason: CloseReason, codes: int) -> None:
    assert close_code(close_reason, codes) == TABLES[codes][close_reason]


@pytest.mark.parametrize("close_reason", SAID)
def test_a_reason_fits_into_a_close_frame(close_reason: CloseReason) -> None:
    assert 0 < len(close_text(close_reason).encode()) <= 123


def test_each_ending_has_a_reason_of_its_own() -> None:
    assert len({close_text(close_reason) for close_reason in SAID}) == len(SAID)


def test_only_the_service_of_2020_refuses_a_bad_key_before_the_upgrade() -> None:
    assert refuses_at_handshake(2020)
    assert not refuses_at_handshake(2019)
