"""Topic patterns by AMQP's rules: words between dots, `*` for exactly one word, `#` for any number or none.

Both are whole words only. An empty word, as in `a..b`, is a word like any other. Topics whose first word is
`system` are matched by patterns with that first word alone.
"""

import re

DOT = "."
ONE = "*"
ANY = "#"
SYSTEM = "system"
"""The first word of topics of our own. Only a pattern with the same first word matches them."""
MAX_LENGTH = 255
# Matching tries every further word of a topic at each `#`: many of them would be an attack.
MAX_ANY = 4
# As in the topics of events: a pattern with blanks could never match.
_NO_BLANKS = re.compile(r"[^\s\x00-\x1f\x7f]+")


def words(topic: str) -> list[str]:
    """The words of a topic or of a pattern."""
    return topic.split(DOT)


def is_system(topic: str) -> bool:
    """Whether the topic is one of our own, which no publisher may use."""
    return topic.startswith(SYSTEM) and words(topic)[0] == SYSTEM


def topic_error(topic: str) -> str | None:
    """The rule that a topic breaks, to be put after its name; None for a valid one."""
    if not 1 <= len(topic) <= MAX_LENGTH:
        return f"must be a string of 1 to {MAX_LENGTH} characters"
    if not _NO_BLANKS.fullmatch(topic):
        return "must have no blanks or control characters"
    return None


def pattern_error(pattern: str) -> str | None:
    """The same of a pattern."""
    if (wrong := topic_error(pattern)) is not None:
        return wrong
    if any(len(word) > 1 and (ONE in word or ANY in word) for word in words(pattern)):
        return "may have * and # only as whole words, between dots"
    if words(pattern).count(ANY) > MAX_ANY:
        return f"may have # at most {MAX_ANY} times"
    return None


def matches(pattern: str, topic: str) -> bool:
    """Whether this one pattern matches; `matching.Index` is for many."""
    wanted = words(pattern)
    if is_system(topic) and wanted[0] != SYSTEM:
        return False
    # at[i]: the first i words of the pattern match the topic's words so far.
    at = [all(word == ANY for word in wanted[:i]) for i in range(len(wanted) + 1)]
    for word in words(topic):
        after = [False]
        for i, want in enumerate(wanted):
            here = at[i] and want in (ONE, word) and want != ANY
            any_number = want == ANY and (after[i] or at[i] or at[i + 1])
            after.append(here or any_number)
        at = after
    return at[-1]
