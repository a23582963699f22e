"""Installations whose services have exactly the rights in deploy/redis/users.acl, and which they used."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.harness.monitor import Monitor
from tests.harness.processes import CHECKOUT
from tests.harness.valkey import Valkey

FILE = CHECKOUT / "deploy" / "redis" / "users.acl"
PASSWORD = "letmein"
REPORTS = "RIGHTS_REPORTS"
"""Environment variable: the folder in which each server leaves what was denied and used."""


@dataclass(frozen=True, slots=True)
class Rights:
    """One set of permissions: a user's own, or those of one of its selectors."""

    commands: tuple[str, ...]
    keys: tuple[str, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """A line of the file. `jobs` are the rights on the Redis of the jobs: the selector in parentheses."""

    name: str
    state: Rights
    jobs: Rights | None


def users() -> dict[str, User]:
    """By name, in the order of the file."""
    return {user.name: user for user in map(_user, FILE.read_text().splitlines())}


def _user(line: str) -> User:
    head, _, jobs = line.partition(" (")
    word, name, *rules = head.split()
    assert word == "user", line
    return User(name, _rights(rules), _rights(jobs.rstrip(")").split()) if jobs else None)


def _rights(rules: Iterable[str]) -> Rights:
    rules = list(rules)
    return Rights(
        tuple(rule[1:] for rule in rules if rule.startswith("+")),
        tuple(rule for rule in rules if rule.startswith(("~", "%"))),
        tuple(rule for rule in rules if rule.startswith("&")),
    )


def acl_file(folder: Path, text: str) -> Path:
    """The users of `text` with a password, and the tests' own user `default`, who may do everything."""
    lines = [line.replace(" off ", f" on >{PASSWORD} ", 1) for line in text.splitlines()]
    path = folder / "users.acl"
    path.write_text("\n".join(["user default on nopass ~* &* +@all", *lines, ""]))
    return path


class Restricted(Valkey):
    """A Valkey on which each service is a user of its own. Records what each user executes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        text = Path(os.environ.get("RIGHTS_FILE", FILE)).read_text()
        more = {"aclfile": str(acl_file(folder, text)), **(options.pop("more", None) or {})}
        super().__init__(folder, **{**options, "tcp": True, "more": more})
        self.monitor = Monitor(self.port, folder / f"{self.name}-monitor")
        self._is_recording = False

    def settings_for(self, service: str) -> dict[str, str]:
        return {"REDIS_URL": f"redis://notify-{service}:{PASSWORD}@127.0.0.1:{self.port}/0"}

    def start(self) -> None:
        super().start()
        if not self._is_recording:
            self._is_recording = True
            self.monitor.start()

    def denied(self) -> list[str]:
        """ACL LOG: every command, key or channel that was refused to a user of ours."""
        with self.client() as direct:
            entries = direct.acl_log()
        return [
            f"{entry['username']}: {entry['reason']} {entry['object']} ({entry['context']})"
            for entry in entries
            if entry["reason"] != "auth" and entry["username"].startswith("notify-")
        ]

    def close(self) -> None:
        try:
            denied = self.denied() if self.alive else []
        except redis.RedisError:
            denied = []
        if self._is_recording:
            self.monitor.stop()
        super().close()
        if reports := os.environ.get(REPORTS):
            executed = self.monitor.executed()
            used = {
                user: sorted(
                    {(each.command, name) for each in some for name in map(shape, each.names or [""])}
                )
                for user, some in executed.items()
            }
            scripts = {
                user: sorted({each.script for each in some if each.script}) for user, some in executed.items()
            }
            report = {"denied": denied, "used": used, "scripts": scripts}
            Path(reports, f"{os.getpid()}-{self.port}.json").write_text(json.dumps(report))


_IDS = re.compile(r"\{(?:[0-9a-f]{32}|[^{}]*/[^{}]*)\}")
_HASHES = re.compile(r":(receipt|running|idempotency|pushed|rates|heartbeat):.*")


def shape(name: str) -> str:
    """A name with its ids replaced by stars."""
    name = _IDS.sub("{*}", name)
    name = re.sub(r"^\{due:\d\}", "{due:*}", name)
    name = re.sub(r"^wakeup:.*/.*", "wakeup:*", name)
    name = re.sub(r"^arq:([a-z-]+:).*", r"arq:\1*", name)
    return _HASHES.sub(r":\1:*", name)
