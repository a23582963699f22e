"""Every ending that a client can be told, in both tables of close codes."""

import pytest

from shared.model.channels import Ending
from shared.wire.pelion.closing import close_code, close_reason, refuses_at_handshake

# The client has gone, or hears nothing: no close frame is sent.
UNSAID = {Ending.CLIENT_GONE, Ending.STALLED, Ending.IDLE}
SAID = sorted(set(Ending) - UNSAID)

TABLES = {
    2019: {
        Ending.TAKEN_OVER: 1001,
        Ending.CHANNEL_DELETED: 1001,
        Ending.STOPPING: 1001,
        Ending.KEY_REVOKED: 1008,
        Ending.KEY_EXPIRED: 1008,
        Ending.BAD_KEY: 1008,
        Ending.NO_CHANNEL: 1011,
        Ending.REDIS_AWAY: 1011,
        Ending.UNEXPECTED: 1011,
    },
    2020: {
        Ending.TAKEN_OVER: 1001,
        Ending.CHANNEL_DELETED: 1000,
        Ending.STOPPING: 1012,
        Ending.KEY_REVOKED: 1008,
        Ending.KEY_EXPIRED: 1008,
        Ending.BAD_KEY: 1008,
        Ending.NO_CHANNEL: 1011,
        Ending.REDIS_AWAY: 1011,
        Ending.UNEXPECTED: 1011,
    },
}


@pytest.mark.parametrize("codes", TABLES)
@pytest.mark.parametrize("ending", SAID)
def test_the_code_of_an_ending(ending: Ending, codes: int) -> None:
    assert close_code(ending, codes) == TABLES[codes][ending]


@pytest.mark.parametrize("ending", SAID)
def test_a_reason_fits_into_a_close_frame(ending: Ending) -> None:
    assert 0 < len(close_reason(ending).encode()) <= 123


def test_each_ending_has_a_reason_of_its_own() -> None:
    assert len({close_reason(ending) for ending in SAID}) == len(SAID)


def test_only_the_service_of_2020_refuses_a_bad_key_before_the_upgrade() -> None:
    assert refuses_at_handshake(2020)
    assert not refuses_at_handshake(2019)
