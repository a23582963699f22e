"""How sessions' sockets are closed."""

import pytest

from shared.model.channels import Ending
from shared.wire.session_closing import close_code, close_reason

CODES = {
    Ending.IDLE: 1000,
    Ending.STOPPING: 1001,
    Ending.KEY_REVOKED: 1008,
    Ending.KEY_EXPIRED: 1008,
    Ending.REDIS_AWAY: 1011,
    Ending.UNEXPECTED: 1011,
}


@pytest.mark.parametrize(("ending", "code"), CODES.items())
def test_each_ending_has_its_code_and_a_reason_that_fits(ending: Ending, code: int) -> None:
    assert close_code(ending, 2019) == code
    assert len(close_reason(ending).encode()) <= 123


def test_a_restart_has_a_code_since_2020() -> None:
    assert close_code(Ending.STOPPING, 2020) == 1012
    assert {ending: close_code(ending, 2020) for ending in CODES if ending is not Ending.STOPPING} == {
        ending: code for ending, code in CODES.items() if ending is not Ending.STOPPING
    }
