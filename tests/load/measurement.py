"""What a run has measured, and the figures of every scenario with a stream of notifications."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.load.latencies import Latencies, merged, percentile
from tests.load.processes import Window, joined
from tests.load.publishers import Published, all_published
from tests.load.recorder import Received
from tests.load.redis_work import RedisWork, total
from tests.load.result import (
    Result,
    client_warnings,
    cpu_figures,
    latency_figures,
    system_call_figures,
    usage_figures,
)
from tests.load.sequences import Count


@dataclass(slots=True)
class Measurement:
    """What was measured. `count` covers the measured time, `whole` the run up to its end."""

    window: Window
    published: Published
    count: Count
    whole: Count
    latencies: Latencies
    begin_us: int
    last_us: int
    by_worker: list[Received]
    redis: RedisWork | None = None

    @property
    def took_s(self) -> float:
        """From the first request to the last receipt."""
        return max(1e-6, (self.last_us - self.begin_us) / 1e6)


def combined(phases: Sequence[Measurement], *, whole: Count) -> Measurement:
    """One measurement of several phases; the time between them does not count."""
    works = [phase.redis for phase in phases if phase.redis is not None]
    return Measurement(
        window=joined([phase.window for phase in phases]),
        published=all_published(phase.published for phase in phases),
        count=sum((phase.count for phase in phases), Count()),
        whole=whole,
        latencies=merged(phase.latencies for phase in phases),
        begin_us=0,
        last_us=int(sum(phase.took_s for phase in phases) * 1e6),
        by_worker=phases[-1].by_worker,
        redis=total(works) if works else None,
    )


def result_of(label: str, measured: Measurement) -> Result:
    """The figures of every scenario with a stream of notifications.

    `redis_commands_per_notification`: the commands that all primaries executed in the measured time, each one
    inside a script included, divided by the delivered notifications. `redis_scripts_per_notification`: the
    EVALSHAs, which the commands do not include. `redis_work.EXCLUDED` lists what neither includes.
    """
    delivered = measured.count.received
    published = measured.published
    figures = {
        "published_per_s": round(published.events / measured.took_s, 1),
        "delivered_per_s": round(delivered / measured.took_s, 1),
        **latency_figures(measured.latencies),
        **latency_figures(published.answered, name="answer"),
        **cpu_figures(measured.window, delivered),
        **usage_figures(measured.window),
    }
    if measured.redis is not None:
        figures |= measured.redis.figures(delivered)
    figures |= system_call_figures(measured.window, delivered)
    behind_ms = percentile(published.behind.ordered(), 99) / 1000 if len(published.behind) else 0.0
    warnings = client_warnings(measured.window, behind_p99_ms=behind_ms)
    if published.retries:
        warnings.append(f"{published.retries} requests were repeated")
    return Result(
        label,
        figures,
        measured.whole,
        warnings + unexpected_closes(measured.by_worker),
        measured.latencies,
        measured.window,
        measured.redis,
        delivered,
    )


def unexpected_closes(by_worker: Sequence[Received]) -> list[str]:
    """Warnings about sockets that the server closed."""
    codes: dict[str, int] = {}
    for part in by_worker:
        for code, count in part.closed.items():
            codes[code] = codes.get(code, 0) + count
    return [f"{count} sockets were closed with {code}" for code, count in sorted(codes.items())]
