"""Every figure of the README has its result line, with the same options and nothing lost."""

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
# Options that do not change the measurement.
IGNORED = {"label", "out", "html", "compare", "url", "edge_url", "admin_token", "pid"}


def options_of(run: str) -> dict[str, Any]:
    given = vars(arguments(shlex.split(run)))
    return {name: value for name, value in given.items() if name not in IGNORED}


def lines_of(run: str) -> list[dict[str, Any]]:
    options = options_of(run)
    # A line from before an option has it off.
    off = {name: value for name, value in options.items() if not value}
    return [
        line for line in LINES if {name: (off | line["arguments"]).get(name) for name in options} == options
    ]


def test_the_readme_has_figures() -> None:
    assert len(RUNS) >= 8


@pytest.mark.parametrize("run", RUNS)
def test_a_figure_has_its_result_line(run: str) -> None:
    lines = lines_of(run)

    assert lines, "no result with these options"
    for line in lines:
        assert line["count"]["lost"] == line["count"]["out_of_order"] == line["count"]["duplicated"] == 0
        assert not line["machine"]["changed"], "the code had uncommitted changes"


def test_other_options_have_no_line() -> None:
    assert lines_of("sockets --rate 17") == []
    assert lines_of("saturate --profile") == []
