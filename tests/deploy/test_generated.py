"""What follows from the chart was written anew after the chart changed."""

from pathlib import Path

import pytest
import yaml

from tests.deploy.files import CHART
from tests.deploy.generate import generated, value_rows


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    assert path.read_text() == generated()[path], "run: python -m tests.deploy.generate"


def test_every_value_has_its_row() -> None:
    """Each key of values.yaml that has no keys below it; `x.*` stands for what an anchor repeats."""
    text = (CHART / "values.yaml").read_text()
    rows = {path for path, _, _ in value_rows(text)}

    def leaves(values: dict[str, object], path: str) -> set[str]:
        found = set()
        for key, value in values.items():
            below = leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else {path + key}
            found |= below
        return found

    for leaf in leaves(yaml.safe_load(text), ""):
        shown = {leaf.rsplit(".", depth)[0] for depth in range(leaf.count(".") + 1)}
        assert rows & (shown | {leaf.split(".")[0] + ".*"}), leaf


def test_every_value_is_explained() -> None:
    """By its own comment or by that of a section around it."""
    rows = value_rows((CHART / "values.yaml").read_text())
    explained = {path for path, _, meaning in rows if meaning}
    for path, _, _ in rows:
        around = {path.rsplit(".", depth)[0] for depth in range(path.count(".") + 1)}
        assert explained & around, path


def test_a_comment_belongs_to_the_key_below_it() -> None:
    text = "a:\n  # One thing,\n  # over two lines.\n  b: 1\n  c: x\n# Of all.\nd:\n  e: []\n"
    assert value_rows(text) == [
        ("a.b", "1", "One thing, over two lines."),
        ("a.c", "x", ""),
        ("d", "", "Of all."),
        ("d.e", "[]", ""),
    ]
