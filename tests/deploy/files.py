"""Paths of deployed files, names of services and settings, and how long a service takes to stop."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.__main__ import _SERVICES
from services.socket_edge import heartbeat, shutdown
from services.webhook_dispatcher import dispatcher
from shared.runtime import exporters
from shared.runtime.http import server as serving
from shared.runtime.setting_names import PREFIX
from shared.runtime.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOY = CHECKOUT / "deploy"
CHART = CHECKOUT / "helm" / "notification-gateway"

SERVICES = tuple(_SERVICES)
SETTINGS = frozenset(PREFIX + field.upper() for field in Settings.model_fields)
PORTS = {
    "gateway": Settings().port,
    "socket-edge": Settings().edge_port,
    "webhook-dispatcher": Settings().dispatcher_port,
    "expiry-reaper": Settings().reaper_port,
}

# The server of the service, then the metrics server if there is one.
_LAST_S = 2 * serving._SHUTDOWN_LIMIT_S + exporters.FLUSH_TIMEOUT_S
# The longest time from SIGTERM (an edge: from the end of its drain) to exit: close frames, requests in
# progress, export of spans.
STOPS_WITHIN_S = {
    "gateway": _LAST_S,
    "socket-edge": shutdown.DRAIN_ACKS_S + shutdown.CLOSE_S + shutdown.ABORT_S + heartbeat.STOP_S + _LAST_S,
    "webhook-dispatcher": dispatcher._SHUTDOWN_S + 2 * dispatcher._RELEASE_S + _LAST_S,
    "expiry-reaper": _LAST_S,
}


# In C, ten times as fast, where there is one.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str) -> list[Any]:
    """Those of a YAML file that are not empty."""
    return [found for found in yaml.load_all(text, Loader=_LOADER) if found is not None]


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile with its continued lines, and the name of its build stage."""

    stage: str
    name: str
    words: str

    @property
    def command(self) -> list[str]:
        """The command in exec form. Raises ValueError for the shell form."""
        words: list[str] = json.loads(self.words[self.words.index("[") :])
        return words


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stage = ""
    found = []
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        name, _, words = line.partition(" ")
        if name == "FROM":
            stage = words.partition(" AS ")[2]
        found.append(Instruction(stage, name, words.strip()))
    return found


def image_settings() -> dict[str, str]:
    """Our settings in the image's environment."""
    [env] = [i for i in instructions((DEPLOY / "Dockerfile").read_text()) if i.name == "ENV"]
    pairs = dict(word.split("=", 1) for word in env.words.split())
    return {name: value for name, value in pairs.items() if name.startswith(PREFIX)}
