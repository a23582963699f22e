"""What one request, frame or response holds of a queue, in any dialect."""

from dataclasses import dataclass


@dataclass(slots=True)
class Message:
    """Its text, the entry id of its last notification, and the number of notifications.

    Not frozen: that takes three times as long to create.
    """

    text: bytes
    last_entry_id: str
    count: int
