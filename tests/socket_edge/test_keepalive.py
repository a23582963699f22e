"""Which sockets to ping and which did not answer, in the order of their time."""

from services.socket_edge.keepalive import Keepalive


def keepalive() -> Keepalive[str]:
    return Keepalive(interval_s=20, timeout_s=5)


def test_a_socket_is_pinged_when_it_was_quiet_for_the_interval() -> None:
    line = keepalive()
    line.rests("a", now_s=100)

    assert line.to_ping(now_s=119.9) == []
    assert line.to_ping(now_s=120) == ["a"]
    assert line.overdue(now_s=1000) == []


def test_a_socket_that_owes_a_pong_is_overdue_after_the_time_out() -> None:
    line = keepalive()
    line.rests("a", now_s=100)
    line.owes("a", now_s=120)

    assert line.to_ping(now_s=1000) == [], "one ping is enough"
    assert line.overdue(now_s=124.9) == []
    assert line.overdue(now_s=125) == ["a"]


def test_a_socket_that_answered_rests_again() -> None:
    line = keepalive()
    line.owes("a", now_s=120)
    line.rests("a", now_s=121)

    assert line.overdue(now_s=1000) == []
    assert line.to_ping(now_s=140.9) == []
    assert line.to_ping(now_s=141) == ["a"]


def test_both_lines_are_in_order_of_time_however_often_a_socket_comes_back() -> None:
    line = keepalive()
    for now_s, socket in enumerate("abcab"):
        line.rests(socket, now_s=now_s)
    assert line.to_ping(now_s=22) == ["c"]
    assert line.to_ping(now_s=23) == ["c", "a"]
    assert line.to_ping(now_s=24) == ["c", "a", "b"]

    for now_s, socket in enumerate("abcab"):
        line.owes(socket, now_s=now_s)
    assert line.overdue(now_s=7) == ["c"]
    assert line.overdue(now_s=9) == ["c", "a", "b"]


def test_a_list_can_be_walked_while_the_lines_change() -> None:
    line = keepalive()
    for socket in "abc":
        line.rests(socket, now_s=0)

    for socket in line.to_ping(now_s=20):
        line.owes(socket, now_s=20)
    for socket in line.overdue(now_s=25):
        line.forget(socket)

    assert line.to_ping(now_s=1000) == line.overdue(now_s=1000) == []


def test_what_is_forgotten_is_in_no_line() -> None:
    line = keepalive()
    line.rests("a", now_s=0)
    line.owes("b", now_s=0)

    for socket in ("a", "b", "stranger"):
        line.forget(socket)

    assert line.to_ping(now_s=1000) == line.overdue(now_s=1000) == []
