"""A log line has a constant name and facts, and a client's value cannot forge one."""

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from shared.runtime.logs import configure_logs

logger = logging.getLogger("tests.runtime.logs")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    chatty = {name: logging.getLogger(name).level for name in ("uvicorn", "uvicorn.access", "arq")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name, before in chatty.items():
        logging.getLogger(name).setLevel(before)


def logged(
    capsys: pytest.CaptureFixture[str], log_format: Literal["text", "json"], facts: dict[Any, Any]
) -> str:
    configure_logs(log_format=log_format, level="info")
    logger.info("socket.closed", extra={"facts": facts})
    return capsys.readouterr().err


def test_text_is_time_level_name_and_facts(capsys: pytest.CaptureFixture[str]) -> None:
    line = logged(capsys, "text", {"channel": "4f2a", "took_ms": 12, "reason": None, "rate": 0.125})

    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "INFO socket.closed channel=4f2a took_ms=12 reason=null rate=0.125\n"


@pytest.mark.parametrize("forged", ["x\nERROR all.lost", "x took_ms=1", 'say "hi"', "", "\x1b[2J"])
def test_a_fact_cannot_forge_a_line_or_another_fact(capsys: pytest.CaptureFixture[str], forged: str) -> None:
    line = logged(capsys, "text", {"name": forged})

    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert json.loads(line.partition("name=")[2]) == forged


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = logged(capsys, "json", {"channel": "4f2a", "took_ms": 12, "level": "high"})

    entry = json.loads(line)
    assert line.count("\n") == 1
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "logger": "tests.runtime.logs",
        "name": "socket.closed",
        "channel": "4f2a",
        "took_ms": 12,
        "level_": "high",
    }


@pytest.mark.parametrize("odd", ["\ud800", 2**70, b"\xff", object(), {1: {2}}])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_fact_of_any_type_is_one_line(
    capsys: pytest.CaptureFixture[str], log_format: Literal["text", "json"], odd: object
) -> None:
    line = logged(capsys, log_format, {"odd": odd})

    assert "socket.closed" in line
    assert line.count("\n") == 1


def test_an_exception_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {}
    for log_format in ("text", "json"):
        configure_logs(log_format=log_format, level="info")
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("socket.failed", extra={"facts": {"channel": "4f2a"}})
        lines[log_format] = capsys.readouterr().err

    assert "socket.failed channel=4f2a\nTraceback" in lines["text"]
    assert lines["text"].endswith("ValueError: broken\n")
    assert json.loads(lines["json"])["exception"].endswith("ValueError: broken")


def test_the_level_applies_and_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(log_format="text", level="info")
    logger.debug("too.much")
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("arq.worker").info("job started")
    logging.getLogger("uvicorn.error").warning("seen")

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["seen"]


def test_configuring_again_replaces_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(log_format="json", level="info")
    assert logged(capsys, "text", {}).count("socket.closed") == 1
