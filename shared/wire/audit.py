"""The body of GET /v1/audit (docs/protocols/events.md, section 1)."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from shared.model.audit import Action, AuditEntry
from shared.wire.models import Closed, Moment
from shared.wire.times import moment_text

OPERATOR = "operator"


class AuditEntryBody(Closed):
    """`name` is null where the change did not concern one."""

    at: Moment
    by: Annotated[str, Meta(description="The id of an API key, or `operator`.")]
    action: Action
    target: Annotated[str, Meta(pattern=r"^(ch_)?[0-9a-f]{32}\Z", description="The id of what was changed.")]
    name: str | None
    address: Annotated[str | None, Meta(description="The client's address.")]
    request_id: str | None


class AuditBody(Closed):
    entries: list[AuditEntryBody]
    next_before: str | None


def audit_body(entries: Sequence[AuditEntry], next_before: str | None) -> AuditBody:
    return AuditBody([_body(entry) for entry in entries], next_before)


def _body(entry: AuditEntry) -> AuditEntryBody:
    change = entry.change
    return AuditEntryBody(
        at=moment_text(entry.at_ms),
        by=change.by or OPERATOR,
        action=change.action,
        target=change.target,
        name=change.name or None,
        address=change.address or None,
        request_id=change.request_id or None,
    )
