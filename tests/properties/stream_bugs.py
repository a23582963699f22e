"""Planted bugs in streams: each breaks one rule by which a reader is told the truth."""

from shared.model.streams import Mark
from shared.store.stream_wakeups import StreamWakeup
from tests.properties import stream_model
from tests.properties.bugs import Bug, Steps, with_lines
from tests.properties.stream_installation import Reader
from tests.properties.stream_machine import STREAM_BUDGET, StreamReading


class NeverComparesBefore(Reader):
    """Passes every wakeup on, also when events before it did not come."""

    def follows(self, wakeup: StreamWakeup) -> bool:
        return True


class PassesOnWhatIsAhead(Reader):
    """Takes a wakeup for the next one unless it is of an older epoch or begins behind its place."""

    def follows(self, wakeup: StreamWakeup) -> bool:
        assert self.mark is not None
        return wakeup.epoch == self.mark.epoch and _place(wakeup.before) <= _place(self.mark.offset)


class GoesLiveAfterOnePage(Reader):
    """Takes the last offset of the stream for its place, whatever it has read."""

    async def read(self, *, count: int) -> bool:
        is_at_end = await super().read(count=count)
        assert self.mark is not None
        last = self._log.last()
        if last is not None and self.mark.epoch:
            self.mark = Mark(self.mark.epoch, last.offset)
        return is_at_end


def _place(offset: str) -> tuple[int, ...]:
    return tuple(map(int, offset.split("-")))


# A scenario for each bug, in the machine's rules. Each begins with three events, a reader who waited for the
# first one (0), and one who has had them all (1).


def _a_wakeup_is_lost(machine: StreamReading) -> Steps:
    yield machine.publish(kinds=["public"], most=100)
    yield machine.publish(kinds=["public"], most=100)
    yield machine.lose_a_wakeup(which=1)
    yield machine.hear(which=1, count=1)


def _a_wakeup_comes_after_a_read(machine: StreamReading) -> Steps:
    yield machine.publish(kinds=["public"], most=100)
    yield machine.read(which=1, count=1)
    yield machine.hear(which=1, count=1)


def _a_page_is_not_all(machine: StreamReading) -> Steps:
    yield machine.read(which=0, count=1)
    yield machine.publish(kinds=["public"], most=100)
    yield machine.read(which=0, count=1)


def _redis_loses_its_end(machine: StreamReading) -> Steps:
    yield machine.save()
    yield machine.publish(kinds=["public"], most=100)
    yield machine.hear(which=1, count=1)
    yield machine.lose_tail(which=0)
    yield machine.publish(kinds=["public"], most=100)
    yield machine.read(which=1, count=1)


def _a_primary_has_a_clock_behind(machine: StreamReading) -> Steps:
    yield machine.fail_over(which=1, kinds=["public"], count=1)
    yield machine.read(which=1, count=1)


def _more_come_than_are_kept(machine: StreamReading) -> Steps:
    yield machine.publish(kinds=["public"] * 4, most=3)
    yield machine.read(which=1, count=4)


def _a_purge(machine: StreamReading) -> Steps:
    yield machine.purge()
    yield machine.read(which=1, count=4)


def _a_purge_and_one_event(machine: StreamReading) -> Steps:
    yield machine.purge()
    yield machine.publish(kinds=["public"], most=100)
    yield machine.read(which=0, count=4)


def _an_event_for_a_channel(machine: StreamReading) -> Steps:
    yield machine.publish(kinds=["for a channel", "public"], most=100)
    yield machine.hear(which=1, count=1)


# What a bug leads to first depends on the steps.
_ANY = "|".join(
    getattr(stream_model, name)
    for name in ("HOLE", "TWICE", "DISORDER", "UNTOLD", "WRONG_REASON", "WRONG_BEGINNING")
)
_FROM_THE_FIRST = "    offset = why == '' and at or beginning\n"
_TRIMMED = "      'trimmed', trimmed[count][1]"
_CHECK = "    if not is_known or at ~= offset"
_AFTER_A_PURGE = "    if before ~= '0-0' and call('HGET', state, 'trimmed') ~= before then"


def _bug(name: str, found_as: str, scenario: object, **more: object) -> Bug:
    common = {
        "actor": Reader,
        "correct": Reader,
        "machine": StreamReading,
        "budget": STREAM_BUDGET,
        "or_as": _ANY,
    }
    return Bug(name, found_as, scenario, **{**common, **more})  # type: ignore[arg-type]


BUGS = [
    _bug(
        "wakeup without compare",
        stream_model.HOLE,
        _a_wakeup_is_lost,
        actor=NeverComparesBefore,
    ),
    _bug(
        "wakeup twice",
        stream_model.TWICE,
        _a_wakeup_comes_after_a_read,
        actor=PassesOnWhatIsAhead,
    ),
    _bug("live after one page", stream_model.HOLE, _a_page_is_not_all, actor=GoesLiveAfterOnePage),
    # The epoch is the same after a loss.
    _bug(
        "resume by the epoch alone",
        stream_model.UNTOLD,
        _redis_loses_its_end,
        scripts=with_lines(
            "stream_resume",
            {"    if not is_known or at ~= offset": "    if not is_known then why = 'lost' end\n"},
        ),
    ),
    _bug(
        "a loss is read from the first event",
        stream_model.TWICE,
        _redis_loses_its_end,
        scripts=with_lines("stream_resume", {"    offset = at": _FROM_THE_FIRST}),
    ),
    _bug(
        "an offset says nothing of its event",
        stream_model.UNTOLD,
        _a_primary_has_a_clock_behind,
        scripts=with_lines(
            "stream_append", {"  last = string.format": "  last = string.format('%d-%d', ms, number)\n"}
        ),
    ),
    _bug(
        "what is trimmed is skipped",
        stream_model.HOLE,
        _more_come_than_are_kept,
        scripts=with_lines("stream_resume", {"      why = reason": ""}),
    ),
    _bug(
        "trimmed is not written",
        stream_model.WRONG_REASON,
        _more_come_than_are_kept,
        scripts=with_lines("stream_append", {_TRIMMED: "      'age_ms', age_ms)\n"}),
    ),
    _bug(
        "a purge keeps the epoch",
        stream_model.UNTOLD,
        _a_purge,
        scripts=with_lines("stream_purge", {"epoch = string.format": ""}),
    ),
    _bug(
        "a purge looks like an expiry",
        stream_model.WRONG_REASON,
        _a_purge_and_one_event,
        scripts=with_lines(
            "stream_append",
            {_AFTER_A_PURGE: "    if before ~= '0-0' then\n"},
        ),
    ),
    _bug(
        "a wakeup for one channel",
        stream_model.NOT_FOR_READERS,
        _an_event_for_a_channel,
        scripts=with_lines("stream_append", {"  if more == '' or not string.find(more": "  do\n"}),
    ),
]
