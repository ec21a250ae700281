"""Through the command line, as a user: a whole run, a killed one, and every way of giving wrong input."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from tests.shared.families import tiny_base
from tests.shared.templates import THEIR_FILE, THEIRS

ROOT = Path(__file__).resolve().parent.parent
FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))


def test_train_score_evaluate_show(cli, tmp_path, small_table, demo):
    lines = (demo / "train.csv").read_text("utf-8").splitlines()
    (tmp_path / "train.csv").write_text("\n".join([lines[0], *lines[1:26]]) + "\n", "utf-8")
    table = small_table(12)
    done = cli(
        "train",
        tmp_path / "train.csv",
        "--base",
        "demo/base",
        "--out",
        tmp_path / "ckpt",
        "--images",
        "demo",
        "--epochs",
        1,
        "--batch",
        8,
        "--learning-rate",
        1e-3,
        "--valid-share",
        0.8,
    )
    assert "5 training rows, 20 validation rows" in done.stderr and "epoch 1: validation loss" in done.stderr
    source = json.loads((tmp_path / "ckpt" / "scoring.json").read_text())["data"]
    assert list(source)[:3] == ["file", "sha256", "split"] and source["file"] == "train.csv"
    done = cli("score", table, "--ckpt", tmp_path / "ckpt", "--ckpt", FOLD0, "--out", tmp_path / "scores")
    assert "12 of 12 rows scored" in done.stdout and "accuracy" in done.stdout
    told = [done.stdout.index(text) for text in ("accuracy", "12 of 12 rows scored", "submission:", "probabilities:")]
    assert told == sorted(told)  # as demo/README.md shows it
    about = json.loads((tmp_path / "scores" / "run.json").read_text())
    assert [entry["member"] for entry in about["checkpoints"]] == ["ckpt", "fold0"] and about["counts"]["scored"] == 12
    assert about["versions"]["torch"] and about["data"]["sha256"]
    evaluated = cli("evaluate", tmp_path / "scores").stdout
    assert evaluated.splitlines()[2].startswith("all ") and evaluated.splitlines()[2] in done.stdout
    shown = cli("show", tmp_path / "ckpt").stdout
    for text in ("all 70 keys match the base", "temperature", "rank 16", "당신은", "36,864", "nf4"):
        assert text in shown
    assert cli(
        "train", tmp_path / "train.csv", "--base", "demo/base", "--out", tmp_path / "ckpt", "--images", "demo", check=2
    ).stderr.count("--overwrite")


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(quick_cli, tmp_path, small_table):
    table = small_table(9)
    arguments = ["score", table, "--ckpt", FOLD0, "--batch-tokens", "200"]
    quick_cli(*arguments, "--out", tmp_path / "whole")
    process = command_line.start(*arguments, "--out", tmp_path / "killed")
    parts = tmp_path / "killed" / "logits"
    command_line.wait_until(process, lambda: len(list(parts.glob("*.parquet"))) >= 2)
    process.kill()
    process.join()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert 2 <= len(kept) < len(list((tmp_path / "whole" / "logits").iterdir())), "killed too late to show anything"
    (parts / "part-000099.parquet.tmp").write_bytes(b"half written")
    done = quick_cli(*arguments, "--out", tmp_path / "killed")
    assert "going on:" in done.stderr
    assert all((parts / name).stat().st_mtime_ns == written for name, written in kept.items())  # nothing scored twice
    assert content(tmp_path / "killed", SCORED) == content(tmp_path / "whole", SCORED)
    again = quick_cli(*arguments, "--out", tmp_path / "killed")  # a finished run is read, not repeated
    assert "9 of 9 rows have their scores already" in again.stderr
    assert content(tmp_path / "killed", SCORED) == content(tmp_path / "whole", SCORED)


def test_another_run_does_not_mix_into_a_folder(quick_cli, tmp_path, small_table):
    out = tmp_path / "scores"
    quick_cli("score", small_table(3), "--ckpt", FOLD0, "--out", out)
    done = quick_cli("score", small_table(4), "--ckpt", FOLD0, "--out", out, check=2)
    assert "holds the results of another run: data was" in done.stderr and "--overwrite" in done.stderr
    assert "4 of 4" in quick_cli("score", small_table(4), "--ckpt", FOLD0, "--out", out, "--overwrite").stdout


def test_a_bitsandbytes_that_cannot_be_imported_is_done_without(cli, tmp_path, small_table):
    """Installed for another system, say: PEFT, which only looks whether it is there, must not stumble over it."""
    hidden = tmp_path / "hidden" / "bitsandbytes"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not for this machine')")
    environment = os.environ | {"PYTHONPATH": str(hidden.parent), "PYTHONPROFILEIMPORTTIME": "1"}
    done = cli("score", small_table(2), "--ckpt", FOLD0, "--out", tmp_path / "scores", env=environment)
    assert "no 4-bit weights here (not for this machine): the base is kept in float32" in done.stderr
    assert "2 of 2 rows scored" in done.stdout
    imported = set(re.findall(r"^import time:.* ([\w.]+)$", done.stderr, re.M))
    assert {"torch", "peft"} <= imported  # and nothing that takes long and is of no use here
    assert not imported & {"sklearn", "matplotlib", "cleanlab", "scipy.stats"}


def test_bad_rows_and_unreadable_pictures(quick_cli, tmp_path, small_table):
    table = small_table(5)
    rows = list(csv.reader(table.read_text("utf-8").splitlines()))
    rows[2][1], rows[3][7] = "images/none.jpg", "z"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    broken = tmp_path / rows[4][1]
    broken.write_bytes(broken.read_bytes()[:2000])  # its header is whole
    for command in (["check", table], ["score", table, "--ckpt", FOLD0, "--out", tmp_path / "s"]):
        done = quick_cli(*command, check=2)
        assert "row 2 (line 3, id 'test_0001'), column path: found 'images/none.jpg'" in done.stderr
        assert "row 3 (line 4, id 'test_0002'), column answer: found 'z'; expected one of a, b, c, d" in done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "s").exists()
    assert "broken pixels" in quick_cli("check", table, "--deep", check=2).stderr
    assert "3 good rows" in quick_cli("check", table, "--skip-bad-rows", check=3).stdout
    done = quick_cli("score", table, "--ckpt", FOLD0, "--out", tmp_path / "s", "--skip-bad-rows", check=3)
    assert "3 rows have no score" in done.stderr and "test_0003" in done.stderr
    found = list(csv.DictReader((tmp_path / "s" / "probabilities.csv").read_text().splitlines()))
    assert [row["status"] == "ok" for row in found] == [True, False, False, False, True]
    assert (
        "none.jpg" in found[1]["status"]
        and found[3]["status"].startswith("picture: broken pixels")
        and found[1]["pred"] == ""
    )


WRONG = [
    (["check", "none.csv"], "no such file"),
    (["score", "demo/test.csv", "--ckpt", "none"], "'none': no such folder"),
    (["score", "demo/test.csv", "--ckpt", "demo"], "neither adapter_config.json nor config.json"),
    (["score", "demo/test.csv"], "Missing option '--ckpt'"),
    (["score", "demo/test.csv", "--ckpt", FOLD0, "--base", "./none"], "no such folder"),
    (["score", "demo/test.csv", "--ckpt", FOLD0, "--pixels", "65536"], "pixels is 36864, but this run has 65536"),
    (["score", "demo/test.csv", "--ckpt", FOLD0, "--template", "setup.cfg"], "not a TOML file"),
    (["score", "demo/test.csv", "--ckpt", FOLD0, "--limit", "0"], "limit"),
    (["train", "demo/train.csv", "--base", "demo", "--out", "X"], "no config.json"),
    (["train", "demo/train.csv", "--base", "./none", "--out", "X"], "no such folder"),
    (
        ["train", "demo/train.csv", "--base", "demo/base", "--out", "X", "--log", "tensorboard"],
        "pip install tensorboard",
    ),
    (["evaluate", "demo"], "not a finished SCORES folder"),
    (["bench", "demo/test.csv"], "--ckpt"),
    (["show", "none"], "no such folder"),
    (["nonsense"], "No such command"),
]


@pytest.mark.parametrize("arguments, told", WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_calls_end_with_2_and_say_why(quick_cli, arguments, told, tmp_path):
    done = quick_cli(*[str(tmp_path / "X") if argument == "X" else argument for argument in arguments], check=2)
    assert told in done.stderr and "Traceback" not in done.stderr


def test_rows_without_answers_do_not_train(quick_cli, small_table, tmp_path):
    table = small_table(4)
    text = re.sub(r"(?m),[abcd],(location|object|category|color|count),", r",,\1,", table.read_text("utf-8"))
    table.write_text(text, "utf-8")
    done = quick_cli("train", table, "--base", "demo/base", "--out", tmp_path / "x", check=2)
    assert done.stderr.count("column answer: found no answer") == 4


def test_a_table_without_answers_is_scored(quick_cli, small_table, tmp_path):
    table = small_table(4)
    rows = list(csv.reader(table.read_text("utf-8").splitlines()))
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row[:7] for row in rows])
    quick_cli("score", table, "--ckpt", FOLD0, "--out", tmp_path / "s", "--limit", 3)
    assert len((tmp_path / "s" / "submission.csv").read_text().splitlines()) == 4
    assert not (tmp_path / "s" / "metrics.json").exists()
    assert "no scored row has an answer" in quick_cli("evaluate", tmp_path / "s", check=2).stderr


def test_a_sample_submission_gives_header_ids_and_order(quick_cli, small_table, tmp_path):
    table, sample = small_table(5), tmp_path / "sample_submission.csv"
    rows = list(csv.reader(table.read_text("utf-8").splitlines()))
    rows[2][1] = "images/none.jpg"  # of test_0001
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    call = ["score", table, "--skip-bad-rows", "--ckpt", FOLD0, "--sample", sample, "--out", tmp_path / "s"]
    assert "sample_submission.csv: found no such file" in quick_cli(*call, check=2).stderr
    sample.write_text("Nr,Label\ntest_0003,d\ntest_9999,d\ntest_0001,d\n")
    done = quick_cli(*call, check=2)
    assert (
        "found 1 of 3 ids that no row of the table has: 'test_9999'; 3 of 5 ids of the table are not in" in done.stderr
    )
    assert "loading" not in done.stderr and not (tmp_path / "s").exists()
    sample.write_text("Nr,Label\ntest_0003,d\ntest_0001,d\n")
    assert "'test_0003'" in quick_cli(*call, "--limit", 3, check=2).stderr
    done = quick_cli(*call, check=3)
    told = f"3 of 5 ids of the table are not in {sample}: 'test_0000', 'test_0002', 'test_0004'; submission.csv leaves"
    assert told in done.stderr and "4 of 5 rows scored" in done.stdout
    header, first, second = (tmp_path / "s" / "submission.csv").read_text().splitlines()
    assert (header, second) == ("Nr,Label", "test_0001,") and re.fullmatch("test_0003,[abcd]", first)
    scored = (tmp_path / "s" / "probabilities.csv").read_text().splitlines()
    assert len(scored) == 6 and scored[4].startswith(f"{first},")  # all rows, in the table's order


def test_an_ensemble_takes_a_sample_submission(quick_cli, tmp_path):
    for name, number in (("a", 0.7), ("b", 0.6)):
        lines = [f"{id},{number},{1 - number:.1f}" for id in ("x", "y", "z")]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,p_a,p_b", *lines[:2], "z,0.1,0.9", ""]))
    sample = tmp_path / "sample.csv"
    sample.write_text("nr,answer\nz,\nx,\n")
    call = ["ensemble", tmp_path / "a.csv", tmp_path / "b.csv", "--sample", sample]
    done = quick_cli(*call, "--out", tmp_path / "pool")
    assert f"1 of 3 ids of the table is not in {sample}: 'y'; submission.csv leaves such rows out" in done.stderr
    assert (tmp_path / "pool" / "submission.csv").read_text() == "nr,answer\nz,b\nx,a\n"
    sample.write_text("nr,answer\nw,\n")
    refused = quick_cli(*call, "--out", tmp_path / "other", check=2)
    assert "no row of the table has: 'w'" in refused.stderr and not (tmp_path / "other").exists()


def test_a_template_of_ones_own(quick_cli, small_table, tmp_path):
    (tmp_path / "t.toml").write_text('system = "Answer."\nuser = "{question}\\n{options}{hint}"\n')
    table = small_table(2)
    assert (
        "template is" in quick_cli("score", table, "--ckpt", FOLD0, "--template", tmp_path / "t.toml", check=2).stderr
    )
    done = quick_cli(
        "score", table, "--ckpt", FOLD0, "--template", tmp_path / "t.toml", "--allow-mismatch", "--out", tmp_path / "s"
    )
    assert "template is" in done.stderr and "template is" in (tmp_path / "s" / "run.json").read_text()


def test_an_adapter_of_another_tool_is_scored_by_capital_letters(quick_cli, small_table, tmp_path):
    """It says nothing of its prompt, so that no --allow-mismatch is needed; tables and results keep a, b, c, d."""
    (tmp_path / "theirs").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(ROOT / FOLD0 / name, tmp_path / "theirs")
    (tmp_path / "t.toml").write_text(THEIR_FILE)
    model = ["--ckpt", tmp_path / "theirs", "--base", "demo/base", "--pixels", 192]
    done = quick_cli("score", small_table(4), *model, "--template", tmp_path / "t.toml", "--out", tmp_path / "s")
    assert "low label mass" not in done.stderr
    with open(tmp_path / "s" / "probabilities.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["pred"] for row in rows} <= {*"abcd"} and {"p_a", "p_b", "p_c", "p_d"} <= {*rows[0]}
    assert all(float(row["label_mass"]) > 0.9 for row in rows)
    assert json.loads((tmp_path / "s" / "run.json").read_text())["identity"]["template"] == THEIRS.fingerprint
    (tmp_path / "t.toml").write_text("letters = 'upper'")
    refused = quick_cli("score", small_table(4), *model, "--template", tmp_path / "t.toml", check=2).stderr
    assert "t.toml: letters is upper, but the default system and user would ask for a lower-case letter" in refused


def test_bench(cli, tmp_path, small_table):
    arguments = ["bench", small_table(3), "--ckpt", FOLD0, "--out", tmp_path / "b", "--repeats", 1, "--price", 2]
    done = cli(*arguments)
    report = json.loads((tmp_path / "b" / "bench.json").read_text())
    ways = report["ways"]
    assert report["rows"] == 3 and list(ways) == [
        *("seed", "one", "batched", "strong", "forward", "padded"),
        *("engine-4bit", "engine-16bit", "engine", "cyclic"),
    ]
    padded = ways["padded"]["like_for_like"]
    assert padded["engine_ratio"] == ways["engine-4bit"]["rows_per_second"] / ways["padded"]["rows_per_second"]
    assert f"the engine is {padded['engine_ratio']:.2f}x as fast as the padded forward" in done.stdout
    assert report["first_token"] == {"rows": 3, "top_is_a_label": 3, "violations": []}
    assert all(0 < seconds < 100 for seconds in report["first_run"].values()) and "First run: " in done.stdout
    assert all(way["rows_per_second"] > 0 and 0 <= way["accuracy"]["value"] <= 1 for way in ways.values())
    assert ways["engine"]["cost"]["money"] == pytest.approx(2e5 / ways["engine"]["rows_per_second"] / 3600)
    for title in (way["title"] for way in ways.values()):
        assert title in done.stdout
    assert "100,000 rows take, at 2 an hour" in done.stdout and "0 expected" in done.stdout


def test_bench_of_some_ways_and_what_it_refuses(quick_cli, tmp_path, small_table):
    table = small_table(3)
    arguments = ["bench", table, "--ckpt", FOLD0, "--out", tmp_path / "b", "--repeats", 1]
    done = quick_cli(*arguments, "--ways", "forward,engine")
    report = json.loads((tmp_path / "b" / "bench.json").read_text())
    assert list(report["ways"]) == ["forward", "engine"] and report["first_token"] is None
    assert "ratio" not in report["ways"]["engine"] and "ratio" not in done.stdout
    assert "expected one or more of seed" in quick_cli(*arguments, "--ways", "forward,x", check=2).stderr
    picture = tmp_path / table.read_text("utf-8").splitlines()[2].split(",")[1]
    picture.write_bytes(picture.read_bytes()[:-2000])  # its header is whole
    done = quick_cli(*arguments, "--ways", "engine", check=2)
    assert "test_0001" in done.stderr and "Traceback" not in done.stderr


def test_a_call_that_is_wrong_does_not_cost_the_checkpoint_that_it_would_replace(quick_cli, small_table, tmp_path):
    out = tmp_path / "ckpt"
    out.mkdir()
    (out / "adapter_model.safetensors").write_bytes(b"precious")
    arguments = ["train", small_table(8), "--base", "./none", "--out", out]
    assert "holds a checkpoint" in quick_cli(*arguments, check=2).stderr
    assert "no such folder" in quick_cli(*arguments, "--overwrite", check=2).stderr
    assert (out / "adapter_model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["blink.parquet", "k_mmstar.jsonl"])
def test_a_benchmarks_table_goes_through_all_commands_without_an_option(quick_cli, demo, tmp_path, name):
    """Pictures inside cells, several in a row; options inside the question. The results may be named like the table."""
    table = ROOT / "tests" / "cases" / "tables" / name
    assert "read as" in quick_cli("check", table).stderr
    out = tmp_path / name
    quick_cli("score", table, "--ckpt", demo / "checkpoints" / "fold0", "--limit", 2, "--out", out)
    assert "accuracy" in quick_cli("evaluate", out).stdout
    quick_cli("report", out)
    pictures = pq.read_table(out / "questions.parquet")
    assert (out / "report.html").exists() and all(pictures["picture"].to_pylist())
    assert ("more_pictures" in pictures.column_names) == (name == "blink.parquet")


# ------------------------------------------------------------------ text models
@pytest.fixture(scope="module")
def text_base(base, tmp_path_factory):
    return tiny_base("qwen3", base, tmp_path_factory.mktemp("text") / "base")


@pytest.fixture
def words(tmp_path, demo):
    """A table of the demo's first training rows, without its column of pictures."""

    def make(rows: int, name: str = "words.csv") -> Path:
        with open(demo / "train.csv", encoding="utf-8", newline="") as file:
            kept = [{key: cell for key, cell in row.items() if key != "path"} for row in csv.DictReader(file)][:rows]
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
        return tmp_path / name

    return make


def test_a_table_without_pictures_is_trained_and_answered_by_a_text_model(cli, quick_cli, text_base, words, tmp_path):
    """Two folds, their scores out of fold, a calibration, a run of both, a soup, and one exported model."""
    table, folds, scores = words(24), tmp_path / "folds", tmp_path / "scores"
    options = ("--epochs", 1, "--batch", 8, "--rank", 4, "--learning-rate", 0.01)
    cli("train", table, "--base", text_base, "--out", folds, "--folds", 2, *options)
    manifest = json.loads((folds / "fold0" / "scoring.json").read_text())
    assert manifest["pixels"] == {} and manifest["quantization"] == "nf4"
    shown = quick_cli("show", folds / "fold0").stdout
    assert "all 42 keys match the base" in shown and "none: its base sees no pictures" in shown
    quick_cli("score", table, "--ckpt", folds, "--out-of-fold", "--out", tmp_path / "oof", "--orders", "cyclic")
    quick_cli("calibrate", tmp_path / "oof", "--ckpt", folds)
    quick_cli("score", words(8), "--ckpt", folds, "--orders", "cyclic", "--out", scores)
    run = json.loads((scores / "run.json").read_text())
    assert run["counts"]["scored"] == 8 and {entry["pixels"] for entry in run["checkpoints"]} == {None}
    assert run["processes"][0]["verified"]["largest_difference"] < 0.01
    quick_cli("report", scores)
    quick_cli("soup", folds / "fold0", folds / "fold1", "--out", tmp_path / "soup")
    quick_cli("export", tmp_path / "soup", "--out", tmp_path / "whole", "--dtype", "fp32")
    answers = []
    for name in ("soup", "whole"):
        quick_cli("score", table, "--ckpt", tmp_path / name, "--out", tmp_path / f"{name}-scores", "--limit", 8)
        with open(tmp_path / f"{name}-scores" / "probabilities.csv", encoding="utf-8") as file:
            answers.append([float(row["p_a"]) for row in csv.DictReader(file)])
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def test_the_ways_of_the_benchmark_answer_words_alone(quick_cli, text_base, words, tmp_path):
    out = tmp_path / "bench"
    quick_cli("bench", words(6), "--ckpt", text_base, "--quantization", "none", "--repeats", 1, "--out", out)
    measured = json.loads((out / "bench.json").read_text())
    assert {"seed", "padded", "engine", "cyclic"} <= set(measured["ways"])


def test_rows_with_pictures_are_refused_for_a_text_model_before_it_is_loaded(
    quick_cli, text_base, words, demo, tmp_path
):
    mixed = tmp_path / "mixed.csv"
    mixed.write_text(
        "id,path,question,a,b,answer\n1,images/cat.png,What?,x,y,a\n2,,Which?,x,y,b\n3,images/cat.png,Who?,x,y,a\n"
    )
    (tmp_path / "images").mkdir()
    shutil.copy(next((demo / "images").iterdir()), tmp_path / "images" / "cat.png")
    config = json.loads((text_base / "config.json").read_text())
    unloadable = shutil.copytree(text_base, tmp_path / "base")
    (unloadable / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}))
    expected = "found 1 picture, which a Qwen3 base does not see; expected a question in words alone"
    for call in (("score", "--ckpt"), ("train", "--base"), ("bench", "--ckpt")):
        done = quick_cli(call[0], mixed, "--text-only-rows", call[1], unloadable, "--out", tmp_path / "out", check=2)
        for row in ("row 1 (id '1')", "row 3 (id '3')"):
            assert f"{row}, column path: {expected}; name a base that sees pictures, or drop the row" in done.stderr
    checked = json.loads(quick_cli("check", mixed, "--text-only-rows", "--ckpt", text_base, "--json", check=2).stdout)
    assert (checked["good"], [problem["row"] for problem in checked["problems"]]) == (1, [1, 3])
    quick_cli("check", mixed, "--text-only-rows", "--ckpt", FOLD0)
    done = quick_cli("score", "demo/test.csv", "--ckpt", text_base, "--out", tmp_path / "out", check=2)
    assert "column path: found pictures in all 400 rows, which a Qwen3 base does not see" in done.stderr
    assert done.stderr.count("does not see") == 1 and not (tmp_path / "out").exists()
    left = ("score", mixed, "--text-only-rows", "--skip-bad-rows", "--ckpt", text_base, "--out", tmp_path / "left")
    assert "going on without 2 of 3 rows, which have pictures" in quick_cli(*left, check=3).stderr
    with open(tmp_path / "left" / "probabilities.csv", encoding="utf-8") as file:
        assert [row["status"] == "ok" for row in csv.DictReader(file)] == [False, True, False]


def test_a_budget_of_pixels_is_refused_for_a_text_model(cli, text_base, words, tmp_path):
    for call in (("score", "--ckpt"), ("train", "--base")):
        done = cli(call[0], words(4), call[1], text_base, "--pixels", 448, "--out", tmp_path / "out", check=2)
        assert "a budget of 200,704 pixels for a Qwen3 base, which sees no pictures; leave out --pixels" in done.stderr
