"""`make load-smoke`: a load run of a few seconds by the command line."""

import json
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.harness.programs import program
from tests.load.probes import TRACEPOINTS
from tests.load.redis_work import SCRIPTS
from tests.load.test_faults import run_load


async def test_a_short_run_writes_a_table_a_result_line_and_a_report(tmp_path: Path) -> None:
    out, html = tmp_path / "made" / "results.jsonl", tmp_path / "report.html"
    arguments = ("sockets", "--channels", "5", "--rate", "100", "--seconds", "1", "--warm-up", "0.3")
    code, output = await run_load(*arguments, "--out", str(out), "--html", str(html), "--label", "smoke")
    sys.stdout.write(output)
    assert code == 0, output
    assert re.search(r"lost +0\n", output), output
    line = json.loads(out.read_text())
    assert line["label"] == "smoke"
    assert line["count"]["received"] == line["count"]["published"] == 130
    assert line["figures"]["cpu_all_us"] > 0
    calls = line["redis_calls"]
    assert calls["xadd"] == 100, "the warm-up does not count"
    commands = sum(count for name, count in calls.items() if name not in SCRIPTS)
    assert line["figures"]["redis_commands_per_notification"] == pytest.approx(commands / 100, abs=0.01)
    assert "redis commands: executed" in output
    assert line["machine"]["cores"] > 0
    page = html.read_text()
    plots = re.findall(r"<svg.*?</svg>", page)
    assert [len(ElementTree.fromstring(plot)) > 5 for plot in plots] == [True] * 5
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


async def test_wrong_arguments_exit_with_2() -> None:
    code, output = await run_load("sockets", "--url", "http://127.0.0.1:1")
    assert code == 2, output
    assert "--admin-token" in output
    code, output = await run_load("sockets", "--native")
    assert (code, "--profile" in output) == (2, True), output
    code, output = await run_load("sockets", "--window", "2")
    assert (code, "--publisher websocket" in output) == (2, True), output


async def test_an_unreachable_installation_exits_with_1(tmp_path: Path) -> None:
    code, output = await run_load("sockets", "--url", "http://127.0.0.1:1", "--admin-token", "x" * 16)
    assert code == 1, output
    assert "the run failed" in output


async def test_costs_are_counted_by_system_call_and_by_function(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not TRACEPOINTS.is_dir():
        pytest.skip("needs root and the kernel's tracepoints")
    program("perf")
    out, html = tmp_path / "results.jsonl", tmp_path / "report.html"
    arguments = ("saturate", "--channels", "5", "--seconds", "1", "--warm-up", "0.3", "--profile", "400")
    code, output = await run_load(
        *arguments, "--system-calls", "--out", str(out), "--html", str(html), "--label", "smoke"
    )
    assert code == 0, output
    line = json.loads(out.read_text())
    calls = line["system_calls"]
    assert calls.keys() == {"gateway-0", "edge-0", "redis"}
    delivered = line["redis_calls"]["xadd"]
    # Twenty lanes have a request in progress each, so a turn of the loop serves at most twenty.
    assert all(sum(each.values()) >= delivered / 20 for each in calls.values()), (delivered, calls)
    assert calls["gateway-0"]["epoll_pwait"] > 0
    per_notification = line["figures"]["system_calls_edge_per_notification"]
    assert per_notification == pytest.approx(sum(calls["edge-0"].values()) / delivered, abs=0.01)
    functions = line["functions"]
    assert functions.keys() == {"gateway-0", "edge-0"}
    names = " ".join(name for name, _, _ in functions["gateway-0"])
    assert "shared/publish/" in names, functions
    costs = html.with_suffix(".costs.txt").read_text()
    assert re.search(r"^ +epoll_pwait +[\d,]+ +\d", costs, re.MULTILINE), costs
    assert re.search(r"^ +\S+ \(shared/publish/\S+:\d+\) +\d", costs, re.MULTILINE), costs
