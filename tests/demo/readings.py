"""Real sensor readings: the hourly temperatures of Seattle and San Francisco in 2010.

They come with the package vega_datasets, which is only looked up and never imported: importing it would
import pandas, for two small CSV files.
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
# A temperature sensor's value, as device management numbers such things.
PATH = "/3303/0/5700"
DEVICES = tuple(_FILES)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device measured at one time. `text` is unique among its device's readings."""

    device: str
    time: str
    fahrenheit: str

    @property
    def text(self) -> str:
        return f"{self.time} {self.fahrenheit}"

    @property
    def event(self) -> dict[str, Any]:
        """The reading as POST /v1/events takes it."""
        item = {
            "ep": self.device,
            "path": PATH,
            "ct": "text/plain",
            "payload": base64.b64encode(self.text.encode()).decode(),
            "max-age": 0,
        }
        return {"topic": "device.notifications", "data": item}


def readings() -> list[Reading]:
    """All readings of both devices, in the order of their times."""
    everything = [reading for device in DEVICES for reading in _readings_of(device)]
    return sorted(everything, key=attrgetter("time"))


def text_in(item: dict[str, Any]) -> str:
    """The text of the reading that a notification carries."""
    return base64.b64decode(item["payload"]).decode()


def _readings_of(device: str) -> Iterator[Reading]:
    with (_data_folder() / _FILES[device]).open(newline="") as file:
        for row in csv.DictReader(file):
            # One file gives seconds and the other does not; neither tells a time zone.
            day, minute = row["date"][:_MINUTES].split()
            yield Reading(device, f"{day.replace('/', '-')}T{minute}", row["temp"])


def _data_folder() -> Path:
    package = find_spec("vega_datasets")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package vega_datasets is not installed; `make` installs it")
    return Path(package.origin).parent / "_data"
