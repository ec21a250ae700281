"""`score --endpoint` as people call it."""

import json

import pytest

from tests.shared.endpoint_server import Reply, endpoint_server, falling


@pytest.fixture
def server():
    with endpoint_server() as found:
        yield found


def test_a_table_with_pictures_is_scored_and_evaluated(quick_cli, small_table, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "sk-secret-1")
    table, out = small_table(6), tmp_path / "out"
    call = ["score", table, "--endpoint", server.url, "--model", "lab/small", "--out", out]
    done = quick_cli(*call, "--price", "3", "--token-env", "MY_TOKEN", "--limit", "5")
    assert "5 of 5 rows scored" in done.stdout and "cost 0.0015 at 3 a million" in done.stdout
    assert "5 rows to ask for at" in done.stderr and "another server" in done.stderr
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-secret-1"}
    assert json.loads((out / "run.json").read_text())["counts"]["scored"] == 5
    assert "sk-secret-1" not in (out / "run.json").read_text() + done.stdout + done.stderr
    assert "accuracy" in quick_cli("evaluate", out, "--no-plot").stdout
    other = tmp_path / "other"
    quick_cli(*call[:-1], other, "--limit", "5", "--orders", "cyclic")
    assert "McNemar" in quick_cli("evaluate", out, other, "--no-plot").stdout
    assert quick_cli("report", out).stdout.startswith("report:")
    assert "holds the results of another run" in quick_cli(*call, check=2).stderr


def test_rows_without_an_answer_end_with_exit_code_3(quick_cli, small_table, tmp_path):
    def reply(asked):
        return falling(asked) if asked.number else Reply({"error": {"message": "too large"}}, 413)

    with endpoint_server(reply) as server:
        call = ["score", small_table(4), "--endpoint", server.url, "--model", "m", "--out", tmp_path / "out"]
        done = quick_cli(*call, "--concurrency", "1", check=3)
        assert "1 row has no score" in done.stderr and "HTTP 413 (too large)" in done.stderr
        assert "4 of 4 rows scored" in quick_cli(*call, "--concurrency", "1").stdout


@pytest.mark.parametrize(
    "more, told",
    [
        (["--ckpt", "x", "--pixels", "448", "--shard", "1/2"], "--ckpt, --pixels, --shard with --endpoint"),
        (["--orders", "adaptive"], "expected 1, cyclic, all or a number"),
        (["--orders", "1,cyclic"], "orders '1,cyclic'"),
        (["--calibration", "none.json"], "none.json: no such file"),
        (["--sets", "0.9"], "--sets: "),
    ],
)
def test_what_an_endpoint_has_not_is_refused_before_anything_is_asked(quick_cli, tmp_path, server, more, told):
    call = ["score", "demo/test.csv", "--endpoint", server.url, "--model", "m", "--out", tmp_path / "out"]
    assert told in quick_cli(*call, *more, check=2).stderr
    assert not server.asked and not server.listed
