"""What `/metrics` shows, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServerMetrics:
    """Counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "scoring_requests", "Requests that were answered", ("route", "status"), registry=registry
        )
        self.questions = Counter(
            "scoring_questions", "Questions, by whether they have an answer", ("answered",), registry=registry
        )
        self.tokens = Counter("scoring_input_tokens", "Tokens of questions, in all option orders", registry=registry)
        self.seconds = Histogram(
            "scoring_request_seconds", "From a request to its answer", ("route",), buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "scoring_requests_in_progress", "Requests that are read, wait or are computed", registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
