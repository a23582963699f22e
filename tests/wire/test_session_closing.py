"""How sessions' sockets are closed."""

import pytest

from shared.model.channels import CloseReason
from shared.wire.session_closing import close_code, close_text

CODES = {
    CloseReason.IDLE: 1000,
    CloseReason.STOPPING: 1001,
    CloseReason.KEY_REVOKED: 1008,
    CloseReason.KEY_EXPIRED: 1008,
    CloseReason.REDIS_AWAY: 1011,
    CloseReason.UNEXPECTED: 1011,
}


@pytest.mark.parametrize(("close_reason", "code"), CODES.items())
def test_each_ending_has_its_code_and_a_reason_that_fits(close_reason: CloseReason, code: int) -> None:
    assert close_code(close_reason, 2019) == code
    assert len(close_text(close_reason).encode()) <= 123


def test_a_restart_has_a_code_since_2020() -> None:
    assert close_code(CloseReason.STOPPING, 2020) == 1012
    assert {
        close_reason: close_code(close_reason, 2020)
        for close_reason in CODES
        if close_reason is not CloseReason.STOPPING
    } == {
        close_reason: code for close_reason, code in CODES.items() if close_reason is not CloseReason.STOPPING
    }
