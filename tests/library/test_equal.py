"""The command line and the library give the same numbers, option by option: files of `score` against a `Scorer`."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from scoring import Scorer, read_questions
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.inputs.digests import question_digests
from scoring.library import runs, scorer
from scoring.run import loader, scheduler
from scoring.scores.exposure import write_rows
from scoring.scores.folder import open_scores
from scoring.stats.calibration import read_calibration
from scoring.stats.sets import SetRequest
from scoring.tables.reading import TableOptions, read_table
from tests.shared.demo import BOTH, DEMO
from tests.shared.templates import THEIR_FILE

ROWS = 4
FIRST, SECOND = BOTH
OF_KINDS = ("location", "object")  # task types of the rows
SETTINGS = ("checkpoints", "identity", "data", "base", "notes", "warnings", "orders", "pool", "sets", "sample")


pytestmark = pytest.mark.filterwarnings("ignore::scoring.library.messages.ScoringWarning")  # so few rows


@pytest.fixture(autouse=True)
def shared_models(known_models, monkeypatch):
    """The library takes the models that the command has loaded, too."""
    monkeypatch.setattr(scorer, "BatchScorer", loader.BatchScorer)
    monkeypatch.setattr(scheduler, "FEWEST_SAMPLED", 4)  # some rows of pride in all orders, the others in one


@pytest.fixture(scope="module")
def files(demo, tmp_path_factory):
    """name -> path of what the options name: tables, checkpoints with calibrations, a template."""
    folder = tmp_path_factory.mktemp("equal")
    lines = (demo / "test.csv").read_text("utf-8").splitlines()[: ROWS + 1]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "renamed.csv").write_text("\n".join([lines[0].replace("question", "Q"), *lines[1:]]) + "\n", "utf-8")
    split = [f"{line},{'split' if not row else 'dev' if row % 2 else 'test'}" for row, line in enumerate(lines)]
    (folder / "split.csv").write_text("\n".join(split) + "\n", "utf-8")
    (folder / "sample.csv").write_text("nr,choice\n" + "".join(f"test_{row:04},\n" for row in (3, 1, 2)))
    (folder / "template.toml").write_text(THEIR_FILE, "utf-8")
    questions = read_questions(demo / "test.csv")[:ROWS]
    digests = question_digests(questions)
    words = [word for question in questions for word in question.options]
    mixed, inline = [], []
    for row, question in enumerate(questions):
        options = list(dict.fromkeys(words))[: (26, 2, 3, 5)[row]]
        seen = {"id": question.id, "path": str(question.picture)}
        mixed.append(seen | {"question": question.question, "choices": options, "answer": "b"})
        listed = "\n".join(f"({letter}) {option}" for letter, option in zip("abcd", question.options))
        inline.append(seen | {"question": f"{question.question}\n{listed}", "answer": question.answer})
    for name, rows in (("mixed", mixed), ("inline", inline)):
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    for number, name in enumerate(BOTH):
        for copy in ("folds", "kinds", "sets", "held_out"):
            fold = shutil.copytree(name, folder / copy / f"fold{number}")
            manifest = fold / "scoring.json"
            manifest.write_text(manifest.read_text("utf-8").replace('"../../base"', json.dumps(str(demo / "base"))))
        write_rows(folder / "held_out" / f"fold{number}", digests[1 - number :: 2], digests[number::2])
    faulty = list(lines)
    faulty[2] = ",".join(["test_0001", "images/none.jpg", *lines[2].split(",")[2:]])
    faulty[4] = ",".join([*lines[4].split(",")[:3], "", "", "", "", "", "object", ""])
    (folder / "faulty.csv").write_text("\n".join(faulty) + "\n", "utf-8")
    _write_calibrations(folder)
    names = {path.stem: path for path in folder.iterdir()}
    return {name: str(path) for name, path in (names | {"demo": demo, "base": demo / "base"}).items()}


def _write_calibrations(folder):
    """`folds` has one for its pool, and its first fold one for cyclic orders; those of `kinds` tell rows apart."""
    first, second = (read_calibration(folder / "folds" / f"fold{number}" / "calibration.json") for number in (0, 1))
    fingerprints = [read_checkpoint(name).fingerprint() for name in BOTH]
    pooled = {key: value for key, value in first.fingerprint.items() if key != "adapter"} | {"adapters": fingerprints}
    by_kind = replace(first, groups=dict(zip(OF_KINDS, (0.6, 3.0))))
    by_letter = replace(second, letters=[0.9, -0.5, 0.1, -0.5])
    cyclic = replace(first, temperature=0.7, fingerprint=first.fingerprint | {"orders": "cyclic"})
    spread = np.linspace(0.01, 0.99, 40).tolist()
    pride = replace(first, all_orders=0.5, fingerprint=first.fingerprint | {"orders": "pride"})
    for path, calibration in {
        "folds/calibration.json": replace(first, temperature=2.5, fingerprint=pooled),
        "folds/fold0/calibration.cyclic.json": cyclic,
        "folds/fold0/calibration.pride.json": pride,
        "kinds/fold0/calibration.json": by_kind,
        "kinds/fold1/calibration.json": by_letter,
        "sets/fold0/calibration.json": replace(first, nonconformity=spread, cumulative=spread, shares=[]),
        "hot.json": replace(first, temperature=4.0),
    }.items():
        (folder / path).write_text(json.dumps(calibration.to_json()))


@pytest.fixture
def command(quick_cli, files, tmp_path):
    """Run `score`; the folder of its results."""

    def run(words, table="rows", code=0, out="command"):
        given = [word.format(**files) for word in words.split()]
        given += ["--ckpt", FIRST] * ("--ckpt" not in given) + ["--images", files["demo"], "--allow-outside"]
        quick_cli("score", files[table], *given, "--no-verify", "--out", tmp_path / out, check=code)
        return tmp_path / out

    return run


@pytest.fixture
def in_library(files):
    """The answers of a `Scorer` that is loaded with these options, and the scorer."""

    def score(load, rows="rows", **options):
        load = {name: _filled(value, files) for name, value in ({"ckpt": FIRST} | load).items()}
        loaded = Scorer.load(**load, verify=False)
        read = TableOptions(images=files["demo"], allow_outside=True, **options)
        return loaded, loaded.score(files[rows] if isinstance(rows, str) else rows, options=read)

    return score


def _filled(value, files):
    """An option of `load` with the paths that it names."""
    if isinstance(value, str):
        return value.format(**files)
    return [_filled(each, files) for each in value] if isinstance(value, list) else value


def assert_equal(folder, answers, out):
    """The files of the command, read back, and those that the answers are saved as: the same to the bit."""
    known = open_scores(folder)
    assert answers.ids == known.logits.ids and answers.members == known.logits.members
    assert (
        answers.option_logits.scored.tolist() == known.logits.scored.tolist() and answers.orders == known.logits.orders
    )
    for name in ("logits", "label_mass", "top_token"):
        np.testing.assert_array_equal(getattr(answers, name), getattr(known.logits, name), name)
    assert np.nanmax(np.abs(answers.probabilities - np.exp(known.log_p))) < 1e-6
    saved = answers.save(out / "library")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".csv", ".json")}
    names = {name for name in names if not name.startswith("runs/")} - {"plan.json", "run.json"}
    for name in {*names, "questions.parquet"}:
        assert (saved / name).read_bytes() == (folder / name).read_bytes(), name
    ours, theirs = (json.loads((each / "run.json").read_text()) for each in (saved, folder))
    if "pool" in theirs:  # the command does not say there what adaptive orders saved
        ours["notes"] = [
            note for note in ours["notes"] if not note.startswith(("adaptive orders", "the letters' prior"))
        ]
    for name in SETTINGS:
        assert ours.get(name) == theirs.get(name), name
    for name in ("rows", "scored"):
        assert ours["counts"][name] == theirs["counts"][name]


def assert_asked(scorer, answers, table, numbers=(1,)):
    """Questions that are asked one by one have the answers of the table, up to what a batch changes on a CPU."""
    for number in numbers:
        row = table.questions[number]
        asked = scorer.ask(list(row.pictures), row.question, row.options, hint=row.task_hint, task_type=row.task_type)
        expected = answers[number]
        assert asked.letter == expected.letter and asked.keys() == expected.keys()
        assert all(abs(asked[letter] - expected[letter]) < 2e-6 for letter in asked)
        assert abs(asked.margin - expected.margin) < 4e-6 and abs(asked.label_mass - expected.label_mass) < 2e-6


# The command's options, and the parameters of `Scorer.load`; the checkpoint is the first one where none is named.
CASES = {
    "one order": ("", {}),
    "a number of orders": ("--orders 3", {"orders": 3}),
    "adaptive orders": ("--orders adaptive", {"orders": "adaptive"}),
    "adaptive orders of all rows": ("--orders adaptive --margin 1.5", {"orders": "adaptive", "margin": 1.5}),
    "the letters' prior": ("--ckpt {folds}/fold0 --orders pride", {"ckpt": "{folds}/fold0", "orders": "pride"}),
    "several orders": ("--orders 1,adaptive,1", {"orders": ["1", "adaptive", 1]}),
    "several checkpoints": (f"--ckpt {FIRST} --ckpt {SECOND}", {"ckpt": BOTH}),
    "a folder of folds with a calibration": ("--ckpt {folds}", {"ckpt": "{folds}"}),
    "a folder of folds without one": ("--ckpt {kinds} --orders 2", {"ckpt": "{kinds}", "orders": "2"}),
    "the calibrations of kinds of rows": (
        "--ckpt {kinds}/fold0 --ckpt {kinds}/fold1",
        {"ckpt": ["{kinds}/fold0", "{kinds}/fold1"]},
    ),
    "the calibration of these orders": (
        "--ckpt {folds}/fold0 --orders cyclic",
        {"ckpt": "{folds}/fold0", "orders": "cyclic"},
    ),
    "no calibration": ("--calibration none", {"calibration": "none"}),
    "a calibration in a file": (
        f"--ckpt {FIRST} --ckpt {SECOND} --calibration {{hot}}",
        {"ckpt": BOTH, "calibration": "{hot}"},
    ),
    "a calibration of other orders": (
        "--orders 2 --allow-mismatch --calibration {hot}",
        {"orders": "2", "calibration": "{hot}", "allow_mismatch": True},
    ),
    "a template": ("--template {template} --allow-mismatch", {"template": "{template}", "allow_mismatch": True}),
    "pixels": ("--pixels 160 --allow-mismatch", {"pixels": 160, "allow_mismatch": True}),
    "several pixels and orders": ("--pixels 192,30000 --orders 1,2", {"pixels": [192, 30_000], "orders": ("1", "2")}),
    "no quantization": ("--quantization none --allow-mismatch", {"quantization": "none", "allow_mismatch": True}),
    "NF4 in 4 bits": ("--quantization nf4 --weights 4bit", {"quantization": "nf4", "weights": "4bit"}),
    "NF4 in 16 bits": ("--quantization nf4 --weights 16bit", {"quantization": "nf4", "weights": "16bit"}),
    "small batches": ("--batch-tokens 256", {"batch_tokens": 256}),
    "a base": ("--base {base}", {"base": "{base}"}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_option_of_score_and_the_parameter_of_that_name_give_the_same(name, command, in_library, files, tmp_path):
    words, load = CASES[name]
    scorer, answers = in_library(load)
    assert_equal(command(words), answers, tmp_path)
    if load.get("orders") != "pride":  # it needs a table
        assert_asked(scorer, answers, read_table(files["rows"], TableOptions(images=files["demo"])))


# What the table is, the command's options, and those of reading.
TABLES = {
    "columns with other names": ("renamed", "--column question=Q", {"columns": {"question": "Q"}}),
    "a split": ("split", "--split dev", {"split": "dev"}),
    "2 to 26 options in lists": ("mixed", "--layout choices", {"layout": "choices"}),
    "options inside the question": ("inline", "--layout inline", {"layout": "inline"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_alike(name, command, in_library, files, tmp_path):
    table, words, options = TABLES[name]
    scorer, answers = in_library({"orders": "2"}, table, **options)
    assert_equal(command(f"--orders 2 {words}", table), answers, tmp_path)
    read = read_table(files[table], TableOptions(images=files["demo"], allow_outside=True, **options))
    assert_asked(scorer, answers, read, (0, -1))


def test_faulty_rows_are_those_that_the_command_leaves_out(command, in_library, files, tmp_path):
    scorer, answers = in_library({}, "faulty")
    folder = command("--skip-bad-rows", "faulty", code=3)
    assert [answer.scored for answer in answers] == [True, False, True, False]
    assert "images/none.jpg" in answers[1].status and "option" in answers[3].status
    assert_equal(folder, answers, tmp_path)
    assert answers[1].letter == "" and not answers[1] and np.isnan(answers[1].margin)


def test_rows_of_a_program_have_the_numbers_of_the_table(command, in_library, files):
    known = open_scores(command(""))
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(files["rows"])
    scorer, answers = in_library({}, frame)
    questions = read_questions(files["rows"], files["demo"])
    dicts = frame.to_dict("records")
    dicts[2]["path"] = (DEMO / dicts[2]["path"]).read_bytes()
    for found in (answers, scorer.score(questions), scorer.score(dicts, images=DEMO)):
        np.testing.assert_array_equal(found.logits, known.logits.logits)
        assert np.abs(found.probabilities - np.exp(known.log_p)).max() < 1e-6 and found.ids == known.logits.ids
    streamed = list(scorer.stream(iter(questions)))
    assert [answer.id for answer in streamed] == answers.ids
    for answer, expected in zip(streamed, answers):
        assert all(abs(answer[letter] - expected[letter]) < 2e-6 for letter in answer)


def test_one_row_alone_has_the_same_bits_as_a_table_and_asked(in_library, files):
    row = read_questions(files["rows"], files["demo"])[2]
    for orders in ("1", "cyclic", "adaptive", "3"):
        scorer, [alone] = in_library({"ckpt": BOTH, "orders": orders, "margin": 0.99}, [row])
        asked = scorer.ask(row.pictures, row.question, row.options, hint=row.task_hint, task_type=row.task_type)
        assert dict(asked) == dict(alone) and asked.margin == alone.margin and asked.label_mass == alone.label_mass


def test_orders_of_a_call_are_as_those_of_load(in_library, files):
    scorer, cyclic = in_library({"ckpt": "{folds}/fold0", "orders": "cyclic"})
    one, _ = in_library({"ckpt": "{folds}/fold0"}, read_questions(files["rows"], files["demo"])[:1])
    again = one.score(files["rows"], options=TableOptions(images=files["demo"]), orders="cyclic")
    np.testing.assert_array_equal(again.probabilities, cyclic.probabilities)
    assert [each.temperature for each in again.calibrations] == [
        0.7
    ] and again.scores.run_json == cyclic.scores.run_json


def test_a_sample_submission_gives_its_header_and_rows(command, in_library, files, tmp_path):
    folder = command("--sample {sample}")
    _, answers = in_library({})
    saved = answers.save(tmp_path / "library", sample=files["sample"])
    assert (saved / "submission.csv").read_bytes() == (folder / "submission.csv").read_bytes()
    assert (saved / "submission.csv").read_text().startswith("nr,choice\ntest_0003,")


# The command's options, and the arguments of the function `score`.
RUNS = {
    "sets": (
        "--ckpt {sets}/fold0 --sets 0.9 --sets-method aps",
        {"ckpt": "{sets}/fold0", "sets": SetRequest(0.9, "aps")},
    ),
    "a limit": ("--limit 3 --orders 1,2", {"limit": 3, "orders": "1,2"}),
    "a shard": ("--shard 2/2 --batch-tokens 256", {"shard": (2, 2), "batch_tokens": 256}),
    "out of fold": ("--ckpt {held_out} --out-of-fold", {"ckpt": "{held_out}", "out_of_fold": True}),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_function_score_writes_the_files_of_the_command(name, command, files, tmp_path):
    words, arguments = RUNS[name]
    folder, out = command(words), tmp_path / "function"
    arguments = {name: _filled(value, files) for name, value in ({"ckpt": FIRST} | arguments).items()}
    ckpt, read = arguments.pop("ckpt"), TableOptions(images=files["demo"], allow_outside=True)
    answers = runs.score(files["rows"], ckpt, out, options=read, verify=False, **arguments)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    for name in names:
        if not name.endswith(("run.json", "shard.json")):  # when, how long, by which command
            assert (out / name).read_bytes() == (folder / name).read_bytes(), name
    assert len(answers) == (3 if "limit" in arguments else ROWS)
