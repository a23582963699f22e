"""Settings, metrics, log names, links, commands and times in documents match the code."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from services.__main__ import _parser
from tests.deploy.files import CHART, CHECKOUT, SETTINGS, STOPS_WITHIN_S
from tests.deploy.generate import value_rows

DOCS = CHECKOUT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
RUNBOOK = (DOCS / "runbook.md").read_text()
WEBHOOKS = (DOCS / "webhooks.md").read_text()
STREAMS = (DOCS / "streams.md").read_text()
# Names that prometheus-adapter provides.
ADAPTED = {
    rule["name"]["as"]
    for rule in yaml.safe_load((CHART / "files" / "adapter-rules.yaml").read_text())["rules"]
}
# Paths into the chart's values, also from the middle: `autoscaling.enabled`.
VALUES_OF_THE_CHART = {
    ".".join(part[start:end])
    for path, _, _ in value_rows((CHART / "values.yaml").read_text())
    for part in [path.split(".")]
    for start in range(len(part))
    for end in range(start + 2, len(part) + 1)
}
both = pytest.mark.parametrize("text", [OPERATIONS, RUNBOOK], ids=["operations", "runbook"])
each = pytest.mark.parametrize(
    "text", [OPERATIONS, RUNBOOK, WEBHOOKS, STREAMS], ids=["operations", "runbook", "webhooks", "streams"]
)


@each
def test_settings_exist(text: str) -> None:
    named = set(re.findall(r"NOTIFY_[A-Z_]+[A-Z]", text))
    assert named
    assert named <= SETTINGS


def headings_of(text: str) -> set[str]:
    """What links to the headings of a page name behind the #."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", CHECKOUT / "CONTRIBUTING.md", *DOCS.rglob("*.md")],
    ids=lambda page: page.name,
)
def test_links_lead_to_a_page_and_a_heading(page: Path) -> None:
    text = page.read_text()
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link:
            continue
        if not target.exists() or (heading and heading not in headings_of(target.read_text())):
            broken.append(link)
    assert broken == []


@both
def test_metrics_exist(text: str) -> None:
    declared = (CHECKOUT / "shared" / "telemetry.py").read_text()
    names = {name.replace(".", "_") for name in re.findall(r'"(notify\.[a-z_.]+)"', declared)}
    for metric in re.findall(r"\bnotify_[a-z_]+", text):
        assert re.sub("_(total|seconds|bytes)$", "", metric) in names | ADAPTED


@both
def test_log_names_exist(text: str) -> None:
    code = "".join(
        path.read_text() for top in ("services", "shared") for path in Path(CHECKOUT / top).rglob("*.py")
    )
    known = set(re.findall(r'logger\.\w+\(\s*(?:level, )?"([a-z_.-]+)"', code))
    names = set(re.findall(r"`([a-z_]+\.[a-z-]+)`", text)) - {"dump.rdb", "ca.crt"}
    assert names - VALUES_OF_THE_CHART <= known


def test_files_named_in_documents_exist() -> None:
    documents = [*DOCS.rglob("*.md"), CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    path = r"\b(?:services|shared|tests)/[a-z_/]+\.(?:py|lua)"
    named = {name for document in documents for name in re.findall(path, document.read_text())}
    assert named
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


def test_commands_parse() -> None:
    commands = re.findall(r"python -m services ([^`)\n]+)", OPERATIONS + RUNBOOK + WEBHOOKS)
    assert commands
    for command in commands:
        # This one ends the process.
        if command != "--version":
            _parser().parse_args(shlex.split(command))


def test_the_times_to_stop_match_the_code() -> None:
    rows = re.findall(r"^\| ([a-z, -]+) \| [^|]+ \| (\d+) s \|$", OPERATIONS, flags=re.M)
    documented = {service: float(seconds) for names, seconds in rows for service in names.split(", ")}
    assert documented == STOPS_WITHIN_S
