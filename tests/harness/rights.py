"""Installations whose services have exactly the rights in deploy/redis/users.acl, and which they used."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.harness.cluster import Cluster
from tests.harness.monitor import Monitor
from tests.harness.processes import CHECKOUT
from tests.harness.sentinel import Guarded
from tests.harness.valkey import Valkey

FILE = CHECKOUT / "deploy" / "redis" / "users.acl"
PASSWORD = "letmein"
LINES = FILE.read_text().splitlines()
ON_A_CLUSTER = ("cluster|slots", "cluster|info", "asking")
ON_SENTINEL = ("role",)
OF_SENTINELS = ("sentinel|masters",)
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
    return {user.name: user for user in map(_user, LINES)}


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


def without_jobs(lines: Iterable[str], *more: str) -> list[str]:
    """For a Redis of the state alone, with more rights."""
    added = "".join(f" +{command}" for command in more)
    return [line.partition(" (")[0] + added for line in lines]


def only_jobs(lines: Iterable[str]) -> list[str]:
    """For a Redis of the jobs alone."""
    own = [(line.split()[1], line.partition(" (")[2].rstrip(")")) for line in lines if "(" in line]
    return [f"user {name} off resetkeys {rules}" for name, rules in own]


def acl_file(folder: Path, name: str, lines: Iterable[str]) -> Path:
    """These users with a password, and the tests' own user `default`, who may do everything."""
    lines = [line.replace(" off ", f" on >{PASSWORD} ", 1) for line in lines]
    path = folder / f"{name}.acl"
    path.write_text("\n".join(["user default on nopass ~* &* +@all", *lines, ""]))
    return path


class Restricted(Valkey):
    """A Valkey on which each service is a user of its own. Records what each user executes."""

    def __init__(self, folder: Path, *, users: Sequence[str] = (), **options: Any) -> None:
        name = str(options.get("name", "valkey"))
        more = {"aclfile": str(acl_file(folder, name, users or LINES)), **(options.pop("more", None) or {})}
        super().__init__(folder, **{**options, "tcp": True, "more": more})
        self.monitor = Monitor(self.port, folder / f"{name}-monitor")

    def url_for(self, service: str) -> str:
        return f"redis://notify-{service}:{PASSWORD}@127.0.0.1:{self.port}/0"

    def settings_for(self, service: str) -> dict[str, str]:
        return {"REDIS_URL": self.url_for(service)}

    def start(self) -> None:
        super().start()
        self.monitor.start()

    def denied(self) -> list[str]:
        """ACL LOG: every command, key or channel that was refused to a user of ours."""
        with self.client() as direct:
            return denied_in(direct.acl_log())

    def close(self) -> None:
        denied = []
        if reports := os.environ.get(REPORTS):
            with contextlib.suppress(redis.RedisError):
                denied = self.denied()
        self.monitor.stop()
        super().close()
        if reports:
            used, scripts = self.monitor.used()
            report = {"denied": denied, "used": used, "scripts": scripts}
            Path(reports, f"{os.getpid()}-{self.port}.json").write_text(json.dumps(report))


class RestrictedCluster(Cluster):
    """The same as a cluster, with a Redis of its own for the jobs."""

    def __init__(self, folder: Path) -> None:
        state = acl_file(folder, "state", without_jobs(LINES, *ON_A_CLUSTER))
        super().__init__(folder, more={"aclfile": str(state)})
        self.jobs = self._jobs = Restricted(folder, name="jobs-alone", users=only_jobs(LINES))

    def settings_for(self, service: str) -> dict[str, str]:
        url = self.url.replace("://", f"://notify-{service}:{PASSWORD}@")
        jobs = {"JOBS_REDIS_URL": self._jobs.url_for(service)} if users()[f"notify-{service}"].jobs else {}
        return {"REDIS_URL": url, **jobs}

    def denied(self) -> list[str]:
        of_nodes = [denied_in(acl_log(node)) for node in self.nodes]
        return [*self._jobs.denied(), *itertools.chain(*of_nodes)]


class RestrictedGuarded(Guarded):
    """The same behind a sentinel, who knows one user, `notify`."""

    def __init__(self, folder: Path) -> None:
        users = acl_file(folder, "guarded", [f"{line} +{ON_SENTINEL[0]}" for line in LINES])
        rights = " ".join(f"+{right}" for right in OF_SENTINELS)
        super().__init__(
            folder,
            more={"aclfile": str(users)},
            of_sentinel=[f"user notify on >{PASSWORD} -@all {rights}"],
        )

    def settings_for(self, service: str) -> dict[str, str]:
        url = self.url.replace("://", f"://notify-{service}:{PASSWORD}@")
        return {"REDIS_URL": f"{url}?sentinel_username=notify&sentinel_password={PASSWORD}"}

    def denied(self) -> list[str]:
        logs = [acl_log(server) for server in (self.primary, self.replica)]
        logs.append(self.sentinel.ask("ACL", "LOG"))
        return list(itertools.chain(*map(denied_in, logs)))


def acl_log(server: Valkey) -> Any:
    with server.client() as direct:
        return direct.acl_log()


def denied_in(log: Any) -> list[str]:
    return [
        f"{entry['username']}: {entry['reason']} {entry['object']} ({entry['context']})"
        for entry in log
        if entry["reason"] != "auth" and entry["username"].startswith("notify")
    ]
