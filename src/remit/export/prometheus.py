"""Metrics as Prometheus reads them (prometheus.io/docs/instrumenting/exposition_formats), through its own client library."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select

from remit.errors import ConfigError
from remit.export.fold_file import FoldFile
from remit.export.metrics import Histogram, JournalCounts, JournalFold, Labels
from remit.journal.leaves import LeafReader
from remit.storage import schema
from remit.storage.database import storage_errors

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

_CASE = schema.cases.c


class Exposition:
    """The metrics of one tenant. `look` says up to which `seq` the journal can be read; it is asked at each scrape.

    `kept`: where the count is kept, so that it need not begin with the first event. Raises `ConfigError`, `StorageError`.
    """

    def __init__(
        self, leaves: LeafReader, *, look: Callable[[], int], now: Callable[[], int], kept: FoldFile | None = None
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise ConfigError("metrics need more: `pip install 'remit[metrics]'`") from error
        self._client: Any = prometheus_client
        self._leaves = leaves
        self._kept = kept
        self._fold = JournalFold(leaves) if kept is None else kept.fold(leaves)
        self._look = look
        self._now = now
        # Two may scrape at once.
        self._turn = Lock()

    def registry(self) -> CollectorRegistry:
        """A registry of these metrics alone."""
        made: CollectorRegistry = self._client.CollectorRegistry(auto_describe=False)
        made.register(self)
        return made

    def text(self) -> str:
        """All of them, once. Raises `StorageError`."""
        return self._client.generate_latest(self.registry()).decode()

    def collect(self) -> Iterable[Metric]:
        """What the client library asks for at each scrape."""
        with self._turn:
            counts = self._fold.catch_up(self._look())
            if self._kept is not None:
                self._kept.keep(self._fold.state)
            return [*self._counters(counts), *self._histograms(counts), *self._gauges(counts)]

    def _counters(self, counts: JournalCounts) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily

        told: list[tuple[str, str, list[str], Mapping[Labels, float]]] = [
            ("remit_runs", "Runs that have ended.", ["contract", "outcome"], counts.runs),
            ("remit_undos", "Undos of runs that have ended.", ["contract", "outcome"], counts.undos),
            ("remit_imports", "Runs of others that were brought in.", ["contract"], counts.imports),
            ("remit_calls", "Calls that were proposed, by what was decided.", ["contract", "tool", "verdict"], counts.decisions),
            ("remit_call_outcomes", "Calls that were carried out.", ["contract", "tool", "outcome"], counts.outcomes),
            ("remit_denials", "Denials, by the rule or the code that said no.", ["contract", "rule"], counts.denials),
            ("remit_cost_usd", "What calls cost to make.", ["contract", "tool"], _usd(counts.cost_microusd)),
            ("remit_tokens", "Tokens of models.", ["contract", "tool", "direction"], counts.tokens),
            ("remit_register_events", "What was done to the record.", ["type"], counts.on_register),
        ]
        for name, text, labels, values in told:
            family = CounterMetricFamily(name, text, labels=labels)
            for key, value in sorted(values.items()):
                family.add_metric(key, value)
            yield family

    def _histograms(self, counts: JournalCounts) -> Iterator[Metric]:
        from prometheus_client.metrics_core import HistogramMetricFamily

        told: list[tuple[str, str, list[str], Mapping[Labels, Histogram]]] = [
            ("remit_run_seconds", "How long runs took, waiting for people apart.", ["contract"], counts.run_s),
            ("remit_call_seconds", "How long calls took to carry out.", ["contract", "tool"], counts.call_s),
            ("remit_decision_seconds", "How long the gate took to decide.", ["contract"], counts.decision_s),
            ("remit_case_seconds", "How long people took to decide a case.", ["kind"], counts.case_s),
        ]
        for name, text, labels, values in told:
            family = HistogramMetricFamily(name, text, labels=labels)
            for key, histogram in sorted(values.items()):
                bounds = [*map(str, histogram.bounds), "+Inf"]
                buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
                family.add_metric(key, buckets, histogram.sum)
            yield family

    def _gauges(self, counts: JournalCounts) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        opened = GaugeMetricFamily("remit_runs_open", "Runs that have not ended.", labels=["contract"])
        for key, value in sorted(self._fold.open_runs().items()):
            opened.add_metric(key, value)
        waiting = GaugeMetricFamily("remit_cases_open", "Cases that wait for a person.", labels=["kind", "queue"])
        oldest = GaugeMetricFamily("remit_case_age_seconds", "Age of the oldest open case.", labels=["kind", "queue"])
        overdue = GaugeMetricFamily("remit_cases_overdue", "Open cases past their time.", labels=["kind", "queue"])
        now = self._now()
        for kind, queue, count, first, late in self._cases(now):
            waiting.add_metric((kind, queue), count)
            oldest.add_metric((kind, queue), (now - first) / 1e6)
            overdue.add_metric((kind, queue), late)
        events = GaugeMetricFamily("remit_journal_events", "Events of the journal that these metrics are made of.")
        events.add_metric((), counts.events)
        yield from (opened, waiting, oldest, overdue, events)

    def _cases(self, now: int) -> Iterable[Any]:
        """What waits now is said by the table of cases; questions that nobody can answer any more are not among them."""
        late = func.sum(case((_CASE.due_at < now, 1), else_=0))
        asked = (_CASE.expires_at.is_(None)) | (_CASE.expires_at >= now)
        query = (
            select(_CASE.kind, _CASE.queue, func.count(), func.min(_CASE.opened_at), late)
            .where(_CASE.tenant == self._leaves.tenant, _CASE.status == "open", asked)
            .group_by(_CASE.kind, _CASE.queue)
            .order_by(_CASE.kind, _CASE.queue)
        )
        with storage_errors("count the cases"), self._leaves.database.engine.connect() as connection:
            return connection.execute(query).all()


def _usd(microusd: Mapping[Labels, int]) -> dict[Labels, float]:
    return {key: value / 1e6 for key, value in microusd.items()}


@contextmanager
def serve(exposition: Exposition, listen: str) -> Generator[str]:
    """Serve metrics at `host:port` while the block lasts; gives where that is. Raises `ConfigError`."""
    from prometheus_client.exposition import start_wsgi_server

    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_wsgi_server(int(port), host.strip("[]") or "127.0.0.1", exposition.registry())
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"can't listen on `{listen}`: {error}; name another `--listen HOST:PORT`") from error
    try:
        yield f"{host or '127.0.0.1'}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
