"""Routing an event costs what it finds, not what is there: counted in places of the index, not in time."""

import json

import pytest

from shared.model.bindings import DataFields
from shared.wire.pelion.subscriptions import compiled
from tests.benchmarks.matching import CASES, LIMIT, MATCHING, Case, compiled_routes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_work_of_routing_hardly_grows_with_the_bindings(case: Case) -> None:
    visited = []
    for size in case.sizes:
        routes = compiled_routes(case, size)

        found = case.found(routes)

        assert sum(1 for _ in case.bindings(size)) == size
        assert len(found) == len(set(found)) == MATCHING
        visited.append(routes.nodes_visited)
    assert 0 < visited[-1] <= LIMIT * visited[0], visited


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ten_match_and_the_others_do_not(case: Case) -> None:
    matching = {key for key, stored in case.bindings(1_000) if _wants(case, stored)}

    assert matching == set(case.found(compiled_routes(case, 1_000)))
    assert len(matching) == MATCHING


def _wants(case: Case, stored: bytes) -> bool:
    event = case.event
    return any(
        p.matches_data(json.loads(event.data))
        if isinstance(p, DataFields)
        else p.matches(event.topic, event.fields or {})
        for p in compiled(case.source, stored)
    )
