"""The work of routing an event, in executed lines of Python, hardly grows with the number of bindings."""

import json

import pytest

from shared.model.bindings import DataFields
from shared.wire.pelion.subscriptions import compiled
from tests.benchmarks.matching import CASES, LIMIT, MATCHING, Case, routing_table
from tests.model.single import matches, matches_data
from tests.model.work import count_lines


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_work_of_routing_hardly_grows(case: Case) -> None:
    work = []
    for size in (10, 5_000):
        table = routing_table(case, size)

        found, lines = count_lines(lambda: case.find(table))  # noqa: B023

        assert sum(1 for _ in case.bindings(size)) == size
        assert len(found) == len(set(found)) == MATCHING
        work.append(lines)
    assert 0 < work[-1] <= LIMIT * work[0], work


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ten_of_the_bindings_match(case: Case) -> None:
    matching = {key for key, stored in case.bindings(1_000) if _matches(case, stored)}

    assert matching == set(case.find(routing_table(case, 1_000)))
    assert len(matching) == MATCHING


def _matches(case: Case, stored: bytes) -> bool:
    event = case.event
    return any(
        matches_data(p, json.loads(event.data))
        if isinstance(p, DataFields)
        else matches(p, event.topic, event.fields or {})
        for p in compiled(case.source, stored)
    )
