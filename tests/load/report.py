"""The report of a run: one self-contained HTML file with figures and plots."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from typing import Any

from tests.load.cost_tables import cost_tables
from tests.load.latencies import SLOT_US, percentile
from tests.load.plots import Points, distribution_plot, line_plot
from tests.load.processes import ROLES, Window
from tests.load.result import Result
from tests.load.table import named

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111827; margin: 2rem auto; max-width: 76rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .15rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f3f4f6 }
svg { width: 36rem; max-width: 100%; font: 11px system-ui, sans-serif; background: white }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .bad { color: #b91c1c; font-weight: 600 }
"""


def page(results: Sequence[Result], arguments: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    sections = "".join(_section(result) for result in results)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Load run</title>'
        f"<style>{_STYLE}</style><h1>{escape(', '.join(result.label for result in results))}</h1>"
        f"<p>{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · {escape(_listed(machine))}</p>"
        f"<p>{escape(_listed(arguments))}</p>{_figures(results)}{sections}</html>\n"
    )


def _listed(values: Mapping[str, Any]) -> str:
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _figures(results: Sequence[Result]) -> str:
    head = "".join(f"<th>{escape(result.label)}</th>" for result in results)
    rows = [f"<tr><th></th>{head}</tr>"]
    for name in asdict(results[0].count):
        cells = []
        for result in results:
            value = getattr(result.count, name)
            bad = value and name in ("lost", "out_of_order", "unknown")
            cells.append(f'<td class="bad">{value:,}</td>' if bad else f"<td>{value:,}</td>")
        rows.append(f"<tr><td>{name.replace('_', ' ')}</td>{''.join(cells)}</tr>")
    for figure in dict.fromkeys(name for result in results for name in result.figures):
        text, unit = named(figure)
        values = (result.figures.get(figure) for result in results)
        cells = ["<td>–</td>" if value is None else f"<td>{value:,.4g} {unit}</td>" for value in values]
        rows.append(f"<tr><td>{escape(text)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _section(result: Result) -> str:
    plots = [*_latency_plots(result), *_usage_plots(result.window)]
    warnings = "".join(f'<li class="bad">{escape(warning)}</li>' for warning in result.warnings)
    return (
        f"<h2>{escape(result.label)}</h2><ul>{warnings}</ul>"
        f'<div class="plots">{"".join(plot for plot in plots if plot)}</div>'
        f"<pre>{escape(cost_tables(result))}</pre>"
    )


def _latency_plots(result: Result) -> list[str]:
    slots = {number: sorted(slot) for number, slot in sorted(result.latencies.slots.items()) if slot}
    if not slots:
        return []
    first, width_s = min(slots), SLOT_US / 1e6
    lines: dict[str, Points] = {
        name: [((n - first) * width_s, percentile(slot, percent) / 1000) for n, slot in slots.items()]
        for name, percent in (("p50", 50), ("p99", 99), ("max", 100))
    }
    # Half seconds without a receipt are drawn as zero throughput, not as gaps.
    flow = [((n - first) * width_s, len(slots.get(n, ())) / width_s) for n in range(first, max(slots) + 1)]
    ordered = [value / 1000 for value in result.latencies.ordered()]
    return [
        line_plot("latency", "ms", lines),
        distribution_plot("distribution of latency", ordered),
        line_plot("received per second", "", {"received": flow}),
    ]


def _usage_plots(window: Window | None) -> list[str]:
    if window is None or len(window.samples) < 2:
        return []
    begin_s = window.samples[0].at_s
    cpu: dict[str, Points] = {}
    memory: dict[str, Points] = {}
    for role in (*ROLES, "client"):
        names = [each.name for each in window.watched if each.role == role]
        if not names:
            continue
        cpu[role] = [
            (
                after.at_s - begin_s,
                100 * _spent(names, before.cpu_s, after.cpu_s) / (after.at_s - before.at_s),
            )
            for before, after in itertools.pairwise(window.samples)
            if after.at_s > before.at_s
        ]
        memory[role] = [
            (sample.at_s - begin_s, sum(sample.rss.get(name, 0) for name in names) / 2**20)
            for sample in window.samples
        ]
    return [line_plot("CPU, of one core", "%", cpu), line_plot("resident memory", "MiB", memory)]


def _spent(names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return sum(after[name] - before[name] for name in names if name in before and name in after)
