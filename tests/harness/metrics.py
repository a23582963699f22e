"""Metrics of a process, as Prometheus reads them."""

import re

import aiohttp

_SERIES = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


async def metric(http: aiohttp.ClientSession, url: str, name: str, **labels: str) -> float:
    """The sum of the metric's series with these labels; 0 without any."""
    async with http.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    series = [match for line in lines if (match := _SERIES.fullmatch(line)) and match["name"] == name]
    return sum(
        float(each["value"])
        for each in series
        if labels.items() <= dict(_LABEL.findall(each["labels"] or "")).items()
    )
