"""What Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from scoring.serving.metrics import CONTENT_TYPE, ServerMetrics


def test_counts_are_told_in_prometheus_text_format():
    metrics = ServerMetrics()
    metrics.requests.labels("/v1/decisions", 200).inc()
    metrics.requests.labels("/v1/decisions", 429).inc(2)
    metrics.questions.labels("yes").inc(3)
    metrics.tokens.inc(500)
    metrics.waiting.inc()
    metrics.waiting.inc()
    metrics.waiting.dec()
    for seconds in (0.02, 0.3, 100):
        metrics.seconds.labels("/v1/decisions").observe(seconds)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    samples = {
        (each.name, *dict(sorted(each.labels.items())).values()): each.value
        for family in families
        for each in family.samples
    }
    assert samples["scoring_requests_total", "/v1/decisions", "200"] == 1
    assert samples["scoring_requests_total", "/v1/decisions", "429"] == 2
    assert samples["scoring_questions_total", "yes"] == 3 and samples["scoring_input_tokens_total",] == 500
    assert samples["scoring_requests_in_progress",] == 1
    route = "/v1/decisions"
    assert samples["scoring_request_seconds_bucket", "0.01", route] == 0
    assert samples["scoring_request_seconds_bucket", "0.5", route] == 2
    assert samples["scoring_request_seconds_bucket", "60.0", route] == 2
    assert samples["scoring_request_seconds_count", route] == 3
    assert all(family.documentation for family in families) and CONTENT_TYPE.startswith("text/plain; version=")


def test_each_server_counts_for_itself():
    first, second = ServerMetrics(), ServerMetrics()
    first.tokens.inc()
    assert b"scoring_input_tokens_total 1.0" in first.text() and b"scoring_input_tokens_total 0.0" in second.text()
