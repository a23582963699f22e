"""Results as text: a column per run; and ratios to an earlier run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.load.result import Result

_UNITS = {
    "_ms": "ms",
    "_us": "µs",
    "_s": "s",
    "_per_s": "/s",
    "_%": "%",
    "_mib": "MiB",
    "_kib": "KiB",
}
_COLUMN = 14
REDIS_NOTE = (
    "redis commands: executed by all primaries in the measured time, those inside scripts included;"
    " without EVALSHA (redis scripts), INFO and PING"
)


def named(figure: str) -> tuple[str, str]:
    """A figure's readable name and its unit."""
    for ending in sorted(_UNITS, key=len, reverse=True):
        if figure.endswith(ending):
            return figure.removesuffix(ending).replace("_", " "), _UNITS[ending]
    return figure.replace("_", " "), ""


def table(results: Sequence[Result]) -> str:
    """All results side by side, with their warnings."""
    rows = [("", *(result.label for result in results), "")]
    for name in asdict(results[0].count):
        counts = [getattr(result.count, name) for result in results]
        if name not in ("unknown", "told") or any(counts):
            rows.append((name.replace("_", " "), *(f"{count:,}" for count in counts), ""))
    for figure in _figures(result.figures for result in results):
        text, unit = named(figure)
        rows.append((text, *(_shown(result.figures.get(figure)) for result in results), unit))
    lines = aligned(rows)
    if any(result.redis is not None for result in results):
        lines.append(f"  {REDIS_NOTE}")
    for result in results:
        lines += [f"  ! {result.label}: {warning}" for warning in result.warnings]
    return "\n".join(lines)


def comparison(lines: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> str:
    """New figures divided by the newest earlier ones with the same label."""
    before = {line["label"]: line for line in earlier}
    found = []
    for line in lines:
        old = before.get(line["label"])
        if old is None:
            found.append(f"no earlier run of {line['label']}")
            continue
        different = sorted(
            name
            for name, value in line["arguments"].items()
            if name in old["arguments"] and old["arguments"][name] != value
        )
        found.append(
            f"{line['label']}, compared with {old['at']} ({old['machine'].get('commit') or 'no commit'})"
        )
        if different:
            found.append(f"  ! other options: {', '.join(different)}")
        rows = [("", "earlier", "now", "ratio")]
        for figure, value in line["figures"].items():
            was = old["figures"].get(figure)
            if was is not None:
                ratio = f"{value / was:.2f}" if was else "-"
                text, unit = named(figure)
                rows.append((f"{text} {unit}", _shown(was), _shown(value), ratio))
        found += aligned(rows)
    return "\n".join(found)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def _figures(of: Any) -> list[str]:
    """The names of all figures, in order of appearance."""
    return list(dict.fromkeys(name for figures in of for name in figures))


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.4g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    first = max(len(row[0]) for row in rows)
    width = max(_COLUMN, *(len(cell) + 2 for row in rows for cell in row[1:]))
    lines = []
    for row in rows:
        cells = "".join(f"{cell:>{width}}" for cell in row[1:-1])
        lines.append(f"  {row[0]:<{first}}{cells} {row[-1]}".rstrip())
    return lines
