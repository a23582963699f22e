"""Real sensor readings: the hourly temperatures of Seattle and San Francisco in 2010.

The files are part of the package vega_datasets. Do not import it: it would import pandas.
"""

import base64
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

_FILES = {"seattle": "seattle-temps.csv", "san-francisco": "sf-temps.csv"}
_MINUTES = len("2010/01/01 00:00")
# The path of a temperature sensor's value in OMA's registry of objects.
PATH = "/3303/0/5700"
DEVICES = tuple(_FILES)


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement. `text` is unique per device."""

    device: str
    time: str
    fahrenheit: str

    @property
    def text(self) -> str:
        return f"{self.time} {self.fahrenheit}"

    @property
    def event(self) -> dict[str, Any]:
        """The reading as an event for POST /v1/events."""
        item = {
            "ep": self.device,
            "path": PATH,
            "ct": "text/plain",
            "payload": base64.b64encode(self.text.encode()).decode(),
            "max-age": 0,
        }
        return {"topic": "device.notifications", "data": item}


def readings() -> list[Reading]:
    """All readings of both devices, ordered by time."""
    everything = [reading for device in DEVICES for reading in _readings_of(device)]
    return sorted(everything, key=attrgetter("time"))


def text_in(item: dict[str, Any]) -> str:
    """The text of a notification's reading."""
    return base64.b64decode(item["payload"]).decode()


def _readings_of(device: str) -> Iterator[Reading]:
    with (_data_folder() / _FILES[device]).open(newline="") as file:
        for row in csv.DictReader(file):
            # Only one file has seconds; neither has a time zone.
            day, minute = row["date"][:_MINUTES].split()
            yield Reading(device, f"{day.replace('/', '-')}T{minute}", row["temp"])


def _data_folder() -> Path:
    package = find_spec("vega_datasets")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package vega_datasets is not installed; `make` installs it")
    return Path(package.origin).parent / "_data"
