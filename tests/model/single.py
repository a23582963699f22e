"""Whether one pattern by itself matches, through the index."""

from collections.abc import Mapping
from typing import Any

import orjson

from shared.model.bindings import DataFields, Pattern
from shared.model.matching import Index


def matches(pattern: Pattern, topic: str, fields: Mapping[str, str]) -> bool:
    index = Index(orjson.loads)
    index.add(pattern, "owner")
    return index.owners(topic, fields) == {"owner"}


def matches_data(pattern: DataFields, data: Any) -> bool:
    index = Index(orjson.loads)
    index.add(pattern, "owner")
    return index.owners_by_data(data) == {"owner"}
