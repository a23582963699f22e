"""Close codes and texts, for each dialect and year."""

import re
from pathlib import Path

import pytest

from shared.model.channels import CloseReason
from shared.wire.close_reasons import (
    CLOSE_ROWS,
    close_frame,
    close_text,
    refuses_at_handshake,
    should_reconnect,
)

PELION = {
    CloseReason.TAKEN_OVER: (1001, 1001),
    CloseReason.CHANNEL_DELETED: (1001, 1000),
    CloseReason.STOPPING: (1001, 1012),
    CloseReason.KEY_REVOKED: (1008, 1008),
    CloseReason.KEY_EXPIRED: (1008, 1008),
    CloseReason.BAD_KEY: (1008, 1008),
    CloseReason.NO_CHANNEL: (1011, 1011),
    CloseReason.REDIS_UNAVAILABLE: (1011, 1011),
    CloseReason.UNEXPECTED: (1011, 1011),
}
SESSION = {
    CloseReason.IDLE: (1000, 1000),
    CloseReason.STOPPING: (1001, 1012),
    CloseReason.KEY_REVOKED: (1008, 1008),
    CloseReason.KEY_EXPIRED: (1008, 1008),
    CloseReason.REDIS_UNAVAILABLE: (1011, 1011),
    CloseReason.UNEXPECTED: (1011, 1011),
}
PELION_PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "pelion.md"


def test_codes_of_pelion_sockets() -> None:
    assert {reason: row.pelion for reason, row in CLOSE_ROWS.items() if row.pelion} == PELION


def test_codes_of_session_sockets() -> None:
    assert {reason: row.session for reason, row in CLOSE_ROWS.items() if row.session} == SESSION


@pytest.mark.parametrize(("reason", "codes"), PELION.items())
def test_pelion_close_frame(reason: CloseReason, codes: tuple[int, int]) -> None:
    text = close_text(reason)
    assert close_frame(reason, dialect="pelion", year=2019) == (codes[0], text)
    assert close_frame(reason, dialect="pelion", year=2020) == (codes[1], text)


@pytest.mark.parametrize(("reason", "codes"), SESSION.items())
def test_session_close_frame(reason: CloseReason, codes: tuple[int, int]) -> None:
    text = close_text(reason)
    assert close_frame(reason, dialect="session", year=2019) == (codes[0], text)
    assert close_frame(reason, dialect="session", year=2020) == (codes[1], text)


def test_reason_without_close_frame_closes_as_unexpected() -> None:
    assert close_frame(CloseReason.STALLED, dialect="pelion", year=2020) == (1011, "unexpected condition")
    assert close_frame(CloseReason.TAKEN_OVER, dialect="session", year=2019) == (1011, "unexpected condition")


def test_texts_fit_into_a_close_frame_and_differ() -> None:
    texts = [row.text for row in CLOSE_ROWS.values() if row.text]
    assert len(set(texts)) == len(texts)
    assert max(len(text.encode()) for text in texts) <= 123


def test_clients_reconnect_unless_the_key_or_the_channel_is_gone() -> None:
    assert {reason for reason in CloseReason if not should_reconnect(reason)} == {
        CloseReason.TAKEN_OVER,
        CloseReason.CHANNEL_DELETED,
        CloseReason.KEY_REVOKED,
        CloseReason.KEY_EXPIRED,
        CloseReason.BAD_KEY,
    }


def test_only_2020_refuses_a_bad_key_before_the_upgrade() -> None:
    assert refuses_at_handshake(2020)
    assert not refuses_at_handshake(2019)


def test_the_page_for_pelion_clients_has_the_same_codes() -> None:
    section = PELION_PAGE.read_text().partition("## 6 Closing")[2].partition("\n## ")[0]
    in_page = re.findall(r"^\|.*\| (\d{4}) \| (\d{3,4})\b.*\|$", section, re.MULTILINE)
    # 1009 comes from the WebSocket protocol itself, whatever the dialect; 2020 refuses a bad key with a 401.
    expected = PELION | {CloseReason.BAD_KEY: (1008, 401)}
    assert sorted((int(a), int(b)) for a, b in in_page if a != "1009") == sorted(expected.values())
