"""AMQP's rules for topics, and invalid patterns."""

import pytest

from shared.model.topics import matches, pattern_error


@pytest.mark.parametrize(
    ("pattern", "topic", "wanted"),
    [
        ("orders", "orders", True),
        ("orders", "orders.paid", False),
        ("orders.paid", "orders", False),
        ("orders.paid", "orders.Paid", False),
        ("*", "orders", True),
        ("*", "orders.paid", False),
        ("orders.*", "orders.paid", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.", True),
        ("orders.*.created", "orders.eu.created", True),
        ("orders.*.created", "orders.eu.west.created", False),
        ("#", "orders", True),
        ("#", "orders.eu.created", True),
        ("orders.#", "orders", True),
        ("orders.#", "orders.eu.created", True),
        ("orders.#", "order", False),
        ("#.created", "created", True),
        ("#.created", "orders.eu.created", True),
        ("orders.#.created", "orders.created", True),
        ("orders.#.created", "orders.eu.west.created", True),
        ("orders.#.created", "orders.eu.west", False),
        ("*.#", "orders", True),
        ("#.*", "orders.eu", True),
        ("#.#", "orders", True),
        ("#.a.#.b.#", "x.a.y.z.b", True),
        ("#.a.#.b.#", "x.b.y.z.a", False),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("a.b", "a..b", False),
        ("a", "*", False),
        ("*", "#", True),
        ("system", "system", True),
        ("system.#", "system", True),
        ("system.#", "system.webhook.disabled", True),
        ("system.*.disabled", "system.webhook.disabled", True),
        ("system.webhook.disabled", "system.webhook.disabled", True),
        ("#", "system.webhook.disabled", False),
        ("#", "system", False),
        ("*", "system", False),
        ("*.#", "system.webhook.disabled", False),
        ("*.webhook.disabled", "system.webhook.disabled", False),
        ("#.disabled", "system.webhook.disabled", False),
        ("#.system.#", "system.webhook.disabled", False),
        ("#", "systems.webhook", True),
        ("#", "a.system.b", True),
        ("#", "System.webhook", True),
    ],
)
def test_matches(pattern: str, topic: str, *, wanted: bool) -> None:
    assert matches(pattern, topic) is wanted


@pytest.mark.parametrize("pattern", ["orders", "#", "*", "a.*.#.b", "a..b", "ä.ö", "x" * 255, "a/b:c-d_e"])
def test_valid_patterns(pattern: str) -> None:
    assert pattern_error(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "255"),
        ("x" * 256, "255"),
        ("orders paid", "blanks"),
        ("orders\n", "blanks"),
        ("orders\x00", "blanks"),
        ("orders*", "whole words"),
        ("orders.#x", "whole words"),
        ("orders.**", "whole words"),
        ("#.a.#.b.#.c.#.d.#", "at most 4"),
    ],
)
def test_invalid_patterns(pattern: str, message: str) -> None:
    assert message in (pattern_error(pattern) or "")
