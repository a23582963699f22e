"""Logs on stderr: one line for each event, with a constant name and its facts.

Usage: `logger.info("socket.closed", extra={"facts": {"channel": id, "took_ms": 12}})`.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

_BARE_VALUE = re.compile(r"[^\s\"=\\]+")
_CHATTY = ("uvicorn", "uvicorn.error", "uvicorn.access", "arq")


def configure_logs(*, log_format: Literal["text", "json"], level: str) -> None:
    """Logs to stderr in this format. A second call replaces the format."""
    # No format shows caller, thread or process: do not look them up for each line.
    logging._srcfile = None  # as logging's documentation advises
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, _FactsFormatter):
            root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _FactsFormatter(logging.Formatter):
    def traceback(self, record: logging.LogRecord) -> str:
        """The record's exception and stack as text, or an empty string."""
        parts = []
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class TextFormatter(_FactsFormatter):
    """For people: `2026-01-31T08:15:00.123Z INFO socket.closed channel=4f2a took_ms=12`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback of an exception."""
        message = record.getMessage()
        parts = [_time(record), record.levelname, message if message.isprintable() else _quoted(message)]
        parts += [f"{key}={_text(value)}" for key, value in _facts(record).items()]
        line = " ".join(parts)
        traceback = self.traceback(record)
        return f"{line}\n{traceback}" if traceback else line


class JsonFormatter(_FactsFormatter):
    """The same as one JSON object: time, level, logger and name, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. A fact named like one of the fixed fields gets a trailing underscore."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "name": record.getMessage(),
        }
        traceback = self.traceback(record)
        if traceback:
            entry["exception"] = traceback
        for key, value in _facts(record).items():
            entry[f"{key}_" if key in entry else key] = value
        return _json(entry)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts = getattr(record, "facts", None)
    return facts if isinstance(facts, dict) else {}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    # Quoted unless it is a bare word: otherwise a client's value could forge a line or another fact.
    if isinstance(value, str) and value.isprintable() and _BARE_VALUE.fullmatch(value):
        return value
    if type(value) is int:
        return str(value)
    return f"{value:.6g}" if isinstance(value, float) else _quoted(value)


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, default=_named, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # orjson refuses lone surrogates and numbers beyond 64 bits.
        return _quoted(value)


def _quoted(value: object) -> str:
    return json.dumps(value, default=_named, skipkeys=True)


def _named(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
