"""Close codes and texts, for each dialect and year."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from shared.model.channels import CloseReason
from shared.store.queues import LOST_LEASE
from shared.wire.close_reasons import CLOSE_ROWS, close_frame

PELION = {
    CloseReason.TAKEN_OVER: (1001, 1001),
    CloseReason.CHANNEL_DELETED: (1001, 1000),
    CloseReason.STOPPING: (1001, 1012),
    CloseReason.KEY_REVOKED: (1008, 1008),
    CloseReason.KEY_EXPIRED: (1008, 1008),
    CloseReason.BAD_KEY: (1008, None),
    CloseReason.NO_CHANNEL: (1011, 1011),
    CloseReason.PAUSED: (1013, 1013),
    CloseReason.REDIS_UNAVAILABLE: (1011, 1011),
    CloseReason.UNEXPECTED: (1011, 1011),
}
SESSION = {
    CloseReason.IDLE: (1000, 1000),
    CloseReason.CROWDED_OUT: (1013, 1013),
    CloseReason.OVER_BUDGET: (1008, 1008),
    CloseReason.TOO_MANY_FAILURES: (1013, 1013),
    CloseReason.OVER_QUOTA: (1013, 1013),
    CloseReason.STOPPING: (1001, 1012),
    CloseReason.KEY_REVOKED: (1008, 1008),
    CloseReason.KEY_EXPIRED: (1008, 1008),
    CloseReason.REDIS_UNAVAILABLE: (1011, 1011),
    CloseReason.UNEXPECTED: (1011, 1011),
}
NATIVE = {
    CloseReason.STOPPING: 1012,
    CloseReason.REDIS_UNAVAILABLE: 1011,
    CloseReason.UNEXPECTED: 1011,
    CloseReason.CROWDED_OUT: 1013,
    CloseReason.TOO_MANY_FAILURES: 1013,
    CloseReason.OVER_QUOTA: 1013,
    CloseReason.MALFORMED: 4000,
    CloseReason.TOKEN_EXPIRED: 4001,
    CloseReason.TOKEN_KEY_DELETED: 4002,
    CloseReason.SIGNED_OUT: 4003,
    CloseReason.KEY_REVOKED: 4004,
    CloseReason.KEY_EXPIRED: 4004,
    CloseReason.NOT_AUTHENTICATED: 4005,
    CloseReason.TOO_SLOW: 4008,
    CloseReason.OVER_BUDGET: 4009,
}
# From the WebSocket protocol itself: a frame that is too long, and no close frame at all.
OF_THE_PROTOCOL = {1006, 1009}
NO_FRAME = (None, None)
CHECKOUT = Path(__file__).parents[2]
EDGE = CHECKOUT / "services" / "socket_edge"
SESSION_FILES = {EDGE / name for name in ("session_socket.py", "blackhole_socket.py", "cognism_socket.py")}
PELION_FILES = {EDGE / name for name in ("leased_socket.py", "pelion_socket.py")}
NATIVE_FILES = set(EDGE.glob("native/*.py"))
# A native socket says why a channel is no longer its own, and stays open.
OF_NATIVE_CHANNELS = {CloseReason.FORBIDDEN, CloseReason.LOST_WRITES}
# A poll or a reader of streams has an HTTP response and no close frame.
POLL_FILES = {EDGE / "poll.py", EDGE / "long_poll.py", *EDGE.glob("streams/*.py")}


def test_codes_of_pelion_sockets() -> None:
    assert {reason: row.pelion for reason, row in CLOSE_ROWS.items() if row.pelion != NO_FRAME} == PELION


def test_codes_of_session_sockets() -> None:
    assert {reason: row.session for reason, row in CLOSE_ROWS.items() if row.session != NO_FRAME} == SESSION


def test_codes_of_native_sockets() -> None:
    assert {reason: row.native for reason, row in CLOSE_ROWS.items() if row.native is not None} == NATIVE


@pytest.mark.parametrize("reason", CloseReason)
def test_close_frame(reason: CloseReason) -> None:
    row = CLOSE_ROWS[reason]
    for at, year in enumerate((2019, 2020)):
        pelion, session = row.pelion[at], row.session[at]
        assert close_frame(reason, dialect="pelion", year=year) == (pelion and (pelion, row.text))
        assert close_frame(reason, dialect="session", year=year) == (session and (session, row.text))
        assert close_frame(reason, dialect="native", year=year) == (row.native and (row.native, row.text))


def asked_for_in(files: Iterable[Path]) -> set[CloseReason]:
    """The reasons for which these files close connections."""
    closing = re.compile(r"(?:close(?:_at_once|_behind|_after_answer|_with)?|let_go)\(CloseReason\.(\w+)[,)]")
    return {CloseReason[name] for path in files for name in closing.findall(path.read_text())}


def test_every_reason_that_a_socket_is_closed_for_has_codes() -> None:
    shared = set(EDGE.rglob("*.py")) - SESSION_FILES - PELION_FILES - NATIVE_FILES - POLL_FILES
    of_loops = {CloseReason.UNEXPECTED, *LOST_LEASE.values()}

    assert CloseReason.STOPPING in asked_for_in(shared)
    assert asked_for_in(shared | PELION_FILES) | of_loops <= PELION.keys()
    assert asked_for_in(shared | SESSION_FILES) <= SESSION.keys()
    of_native = asked_for_in(shared | NATIVE_FILES)
    assert {CloseReason.NOT_AUTHENTICATED, CloseReason.TOO_SLOW, CloseReason.FORBIDDEN} <= of_native
    assert of_native <= NATIVE.keys() | OF_NATIVE_CHANNELS


def test_texts_fit_into_a_close_frame_and_differ() -> None:
    texts = [row.text for row in CLOSE_ROWS.values() if row.text]
    assert len(set(texts)) == len(texts)
    assert max(len(text.encode()) for text in texts) <= 123


def test_clients_reconnect_unless_the_key_or_the_channel_is_gone() -> None:
    assert {reason for reason, row in CLOSE_ROWS.items() if not row.reconnect} == {
        CloseReason.TAKEN_OVER,
        CloseReason.CHANNEL_DELETED,
        CloseReason.KEY_REVOKED,
        CloseReason.KEY_EXPIRED,
        CloseReason.BAD_KEY,
        CloseReason.UNBOUND,
        CloseReason.TOKEN_EXPIRED,
        CloseReason.TOKEN_KEY_DELETED,
        CloseReason.SIGNED_OUT,
        CloseReason.TICKET_TAKEN,
        CloseReason.MALFORMED,
        CloseReason.FORBIDDEN,
    }


def test_the_page_for_pelion_clients_has_the_same_codes() -> None:
    section = (
        (CHECKOUT / "docs" / "protocols" / "pelion.md")
        .read_text()
        .partition("## 6 Closing")[2]
        .partition("\n## ")[0]
    )
    in_page = re.findall(r"^\|.*\| (\d{4}) \| (\d{3,4})\b.*\|$", section, re.MULTILINE)
    # 1009 comes from the WebSocket protocol itself, whatever the dialect; 2020 refuses a bad key with a 401.
    expected = PELION | {CloseReason.BAD_KEY: (1008, 401)}
    assert sorted((int(a), int(b)) for a, b in in_page if a != "1009") == sorted(expected.values())


def test_the_page_for_native_clients_has_the_same_codes() -> None:
    section = (CHECKOUT / "docs" / "protocols" / "native.md").read_text().partition("\n## 9 The end")[2]
    in_page = [int(code) for code in re.findall(r"^\| (\d{4}) \|", section, re.MULTILINE)]
    assert sorted(in_page) == sorted({*NATIVE.values(), *OF_THE_PROTOCOL})
