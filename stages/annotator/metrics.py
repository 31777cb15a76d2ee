"""Metrics of the annotation server in Prometheus' text format, at /metrics: rounds, queues, time from click to mask.

Numbers and ids of rounds alone are shown, no names, so that a scraper needs no login.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from stages.annotator.server import Server
from storage.workspace.records import RoundState


def add_metrics(app: FastAPI, server: Server) -> None:
    """Add the route /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServerMetrics(server))

    @app.get("/metrics", include_in_schema=False)
    def read_metrics() -> Response:
        """Read the metrics."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _ServerMetrics(Collector):
    """Metrics that are read from the server and its workspace whenever they are asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """Read all metrics."""
        sessions, workspace = self._server.sessions, self._server.workspace

        # Rounds that people work on
        answers = GaugeMetricFamily(
            "gigamask_round_answers", "Answers of rounds that are open or paused", labels=["round_id", "stage", "state"]
        )
        late = GaugeMetricFamily(
            "gigamask_round_late_work", "Lines of late work that nobody merged or dismissed", labels=["round_id"]
        )
        for found in workspace.rounds.read_all():
            if found.state in (RoundState.OPEN, RoundState.PAUSED):
                progress = workspace.rounds.progress(found.round_id)
                for state in ("done", "leased", "free"):
                    answers.add_metric([found.round_id, found.stage, state], getattr(progress, state))
                late.add_metric([found.round_id], progress.open_branches)
        yield answers
        yield late
        yield GaugeMetricFamily(
            "gigamask_reviews_waiting",
            "Submissions that a reviewer may accept, fix or send back",
            value=len(workspace.submissions.read_waiting()),
        )

        # Clicks
        yield GaugeMetricFamily("gigamask_prompts_waiting", "Prompts that wait to be decoded", value=sessions.waiting)
        yield GaugeMetricFamily("gigamask_images_waiting", "Images that wait to be encoded", value=sessions.preparing)
        yield from sessions.latency.collect()
