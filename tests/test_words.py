"""The words that docs/glossary.md replaced stay out of sources, documents, chart and dashboard."""

import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# As a word, or as a part of a name: `owed_since`, `NotifyOwedLong`. Not in "followed".
REPLACED = re.compile(r"(?<![A-Za-z])(?i:nudge|owed|settle|incarnation)|(?:Nudge|Owed|Settle|Incarnation)")
# These record what was so at their time.
HISTORY = {"CHANGELOG.md", "DECISIONS.md", "docs/figures.jsonl", "tests/test_words.py"}


def test_replaced_words_do_not_come_back() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    texts = {
        name: (CHECKOUT / name).read_text(errors="ignore")
        for name in set(listed.stdout.splitlines()) - HISTORY
        if (CHECKOUT / name).is_file()
    }
    assert len(texts) > 100
    assert {name: found for name, text in texts.items() if (found := REPLACED.findall(text))} == {}


def test_names_are_searched_and_ordinary_words_are_not() -> None:
    for name in ("notify_nudges_total", "owed_since", "NotifyOwedLong", "DRAIN_SETTLE_S", "settled"):
        assert REPLACED.search(name), name
    assert not REPLACED.search("followed, allowed, narrowed, resettled")
