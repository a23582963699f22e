"""Behind every figure that a load run gave stands its line: with what it was told, and nothing lost in it."""

import re
import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.load.command_line import arguments

ROOT = Path(__file__).parents[2]
FIGURES = (ROOT / "README.md").read_text().partition("## Figures")[2]
RUNS = re.findall(r'make load RUN="([^"]+)"', FIGURES)
LINES = [orjson.loads(line) for line in (ROOT / "docs" / "figures.jsonl").read_bytes().splitlines()]
# What says where it goes, and not what it is.
BESIDE = {"label", "out", "html", "compare", "url", "edge_url", "admin_token", "pid"}


def told(run: str) -> dict[str, Any]:
    given = vars(arguments(shlex.split(run)))
    return {name: value for name, value in given.items() if name not in BESIDE}


def lines_of(run: str) -> list[dict[str, Any]]:
    wanted = told(run)
    return [line for line in LINES if {name: line["arguments"].get(name) for name in wanted} == wanted]


def test_there_are_figures() -> None:
    assert len(RUNS) >= 8


@pytest.mark.parametrize("run", RUNS)
def test_a_figure_has_its_line(run: str) -> None:
    lines = lines_of(run)

    assert lines, "no run was like this"
    for line in lines:
        assert line["count"]["lost"] == line["count"]["out_of_order"] == line["count"]["duplicated"] == 0
        assert not line["machine"]["changed"], "its commit is not what ran"


def test_another_run_has_none() -> None:
    assert lines_of("sockets --rate 17") == []
