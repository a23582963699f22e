"""What a token allows its bearer: topics to read and to publish, and channels to own."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.model import topics

LONGEST_S = 24 * 3600
"""No token is valid for longer."""
SKEW_S = 30
"""By how much the clock of a back end may be ahead of Redis'."""
LONGEST_SUBJECT = 128


@dataclass(frozen=True, slots=True)
class Grant:
    """The claims of a token that was valid when it was read. Times are by Redis' clock.

    `issued_ms` is None for a token that does not say when it was issued.
    """

    account_id: str
    kid: str
    subject: str
    read: Sequence[str]
    publish: Sequence[str]
    channels: Sequence[str]
    until_ms: int
    issued_ms: float | None = None

    @property
    def id(self) -> str:
        """That of an API key, which has quotas of its own: there is none."""
        return ""

    def may_read(self, topic: str) -> bool:
        return _any_matches(self.read, topic)

    def may_publish(self, topic: str) -> bool:
        return _any_matches(self.publish, topic)

    def may_open(self, *spellings: str) -> bool:
        """`spellings` are the name and the id of one channel: the token has either."""
        return any(each in self.channels for each in spellings)

    def is_cut_off(self, cut_off_ms: float | None) -> bool:
        """Whether it was issued before its subject's cut-off, or may have been."""
        return is_cut_off(self.issued_ms, cut_off_ms)


def is_cut_off(issued_ms: float | None, cut_off_ms: float | None) -> bool:
    """Whether a token of this time falls under a cut-off; None for a time or a cut-off that is not there."""
    if cut_off_ms is None:
        return False
    return issued_ms is None or issued_ms <= cut_off_ms


def subject_error(subject: str) -> str | None:
    """The rule that a subject breaks, to be put after its name; None for a valid one."""
    try:
        size_bytes = len(subject.encode())
    except UnicodeEncodeError:
        return "must be text in Unicode"
    return None if 1 <= size_bytes <= LONGEST_SUBJECT else f"must have 1 to {LONGEST_SUBJECT} bytes"


def _any_matches(patterns: Sequence[str], topic: str) -> bool:
    return topic in patterns or any(topics.matches(pattern, topic) for pattern in patterns)
