"""JSON that is rewritten keeps its numbers as they were written."""

import json
import random

import msgspec
import orjson
import pytest

from shared.wire import exact_json

NUMBERS = [
    *(
        "0",
        "-1",
        "999999999999999",
        "1.0",
        "-0",
        "-0.0",
        "1e2",
        "1E+2",
        "1e-400",
        "0.3000000000000000444",
    ),
    *("9007199254740993", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "9" * 300),
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("form", ["{}", "[{},{}]", '{{"a":{{"b":{}}}}}', '{{"é":[null,"x",{}]}}'])
def test_a_number_is_written_as_it_was(form: str, number: str) -> None:
    text = form.format(number, number).encode()
    assert exact_json.dumps(exact_json.loads(text)) == text


@pytest.mark.parametrize("number", NUMBERS)
def test_the_text_of_a_number(number: str) -> None:
    assert exact_json.number_text(exact_json.loads(number.encode())) == number


def test_what_has_no_text_of_a_number() -> None:
    assert [exact_json.number_text(value) for value in (True, False)] == ["true", "false"]
    others: list[object] = [None, "1", [1], {}]
    assert [exact_json.number_text(value) for value in others] == [None] * 4


def test_any_integer_without_a_text_of_its_own_is_exact() -> None:
    """The pattern that spares most data the slow parser must not let a number through that changes."""
    random.seed(7)
    for _ in range(2000):
        digits = str(random.randrange(10 ** random.randrange(1, 25)))
        text = (random.choice(["", "-"]) + digits + random.choice(["", ".5", ".0", "e3", "E-3"])).encode()
        assert exact_json.dumps(exact_json.loads(text)) == text


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e400", b"[1.0", b'"\\ud800"', b"01", b"1.", b""])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(text)


@pytest.mark.parametrize("depth", [255, 900, 1020])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(TypeError):
        exact_json.dumps(exact_json.loads(b"[" * depth + b"1.0" + b"]" * depth))


def test_what_is_no_json_value_is_refused() -> None:
    with pytest.raises(TypeError):
        exact_json.dumps({"a": object()})


def test_everything_else_is_as_any_parser_has_it() -> None:
    text = json.dumps({"a": [1, "x", None, True, {"": "é"}], "b": ""}, ensure_ascii=False).encode()
    assert exact_json.loads(text) == json.loads(text)
    assert not isinstance(exact_json.loads(b"1"), msgspec.Raw)
