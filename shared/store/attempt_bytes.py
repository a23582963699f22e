"""How many bytes the attempts of an account's webhooks take, as its dispatchers add them up.

Gateways judge what an account may store, and recount it. A dispatcher learns by its reports whether the quota
is used up: what it keeps of a failure is then as little as of a success.
"""

from shared.store.stored_bytes import Stored, StoredBytes, Usage


class AttemptBytes(StoredBytes):
    """The sums of one dispatcher. They count as queues do, with which a recount finds them."""

    def grew(self, account_id: str, size_bytes: int) -> None:
        if size_bytes:
            self.add(account_id, Stored.QUEUES, size_bytes)

    def has_room(self, account_id: str) -> bool:
        """Whether the account had less stored than its quota, some seconds ago."""
        return not self.is_refused(account_id)

    def _judge(self, account_id: str, usage: Usage) -> None:
        self._refuse_or_not(account_id, usage.stored, usage.quota, age_s=0)
