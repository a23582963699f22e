"""What a publish has stored, at most; the next recount finds what it really was (`StoredBytes`)."""

from shared.publish.matching import Matched
from shared.publish.state import Publish
from shared.store.receipts import MOST_CHANNELS
from shared.store.stored_bytes import Stored, StoredBytes

ENTRY_BYTES = 250
"""About what Redis spends on an entry besides its data, with a topic of 30 characters."""
# A queue that was empty takes a block of a stream. Whether it was is known to the next recount.
_BLOCK_BYTES = 4400
# What it takes to find a retained event by its id.
_NAME_BYTES = 200
# On the record of an event's receipt, and more for each channel in it.
_RECEIPT_BYTES = 250
_CHANNEL_BYTES = 35
# On the receipt in a channel, and its place in the channel's list.
_CHANNEL_RECEIPT_BYTES = 240 + 60


def count_stored(stored_bytes: StoredBytes, publish: Publish, matched: Matched) -> None:
    """Counts the notifications, retained events and receipts of a publish that has ended."""
    account_id = publish.account.id
    if matched.copies:
        queues = len(matched.channels) + len(matched.sessions) + len(matched.streams)
        size = matched.size_bytes + matched.copies * ENTRY_BYTES + queues * _BLOCK_BYTES
        stored_bytes.add(account_id, Stored.QUEUES, size + matched.retained * _NAME_BYTES)
    if matched.wants_receipts:
        stored_bytes.add_receipts(account_id, _size_of_receipts(publish, matched))


def _size_of_receipts(publish: Publish, matched: Matched) -> int:
    channels = {index: 0 for index, event in enumerate(publish.posted.events) if event.receipt}
    for indexes in matched.channels.values():
        for index in indexes:
            if index in channels:
                channels[index] += 1
    return sum(
        _RECEIPT_BYTES + min(count, MOST_CHANNELS) * _CHANNEL_BYTES + count * _CHANNEL_RECEIPT_BYTES
        for count in channels.values()
    )
