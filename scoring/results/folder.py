"""A SCORES folder: what `score` leaves, and what can be computed again from its files alone."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.inputs.problems import shown
from scoring.inputs.questions import Question
from scoring.results.files import write_table, write_text
from scoring.results.logits import OptionLogits, read_parts
from scoring.results.metrics import evaluate
from scoring.results.probabilities import pooled_log_probabilities, write_probabilities, write_submission

LOW_MASS, MANY_OTHERS = 0.9, 0.01  # 5th percentile of label mass; share of rows whose top token is no label


class RunError(ValueError):
    """A folder that cannot be used: another run's results, or not a SCORES folder."""


def write_results(out: Path, questions: list[Question], logits: OptionLogits, temperatures: list[float]) -> np.ndarray:
    """probabilities.csv and submission.csv; the (N, K) pooled log-probabilities are returned.

    What later steps need of the data (answers, task types, pictures) goes into questions.parquet.
    """
    log_p = pooled_log_probabilities(logits, temperatures)
    answers = [question.answer for question in questions]
    write_table(
        out / "questions.parquet",
        pa.table(
            {
                "id": logits.ids,
                "answer": answers,
                "task_type": [question.task_type for question in questions],
                "options": pa.array([len(question.options) for question in questions], pa.int32()),
                "picture": [str(question.picture or "") for question in questions],
            }
        ),
    )
    write_probabilities(out / "probabilities.csv", logits, log_p, answers if any(answers) else None)
    write_submission(out / "submission.csv", logits, log_p)
    return log_p


def read_scores(out: Path) -> tuple[OptionLogits, np.ndarray]:
    """A SCORES folder's raw logits and its (N, K) pooled log-probabilities. Raises RunError."""
    try:
        about = json.loads((out / "run.json").read_text("utf-8"))
        ids = pq.read_table(out / "questions.parquet", columns=["id"])["id"].to_pylist()
    except (OSError, ValueError) as error:
        raise RunError(f"{out}: not a finished SCORES folder ({error}); expected what `score` wrote") from None
    members = [entry["member"] for entry in about["checkpoints"]]
    identity = about["identity"]
    logits = read_parts(out / "logits", ids, members, len(identity["letters"]), identity.get("orders", "1"))
    return logits, pooled_log_probabilities(logits, [entry["temperature"] for entry in about["checkpoints"]])


def evaluate_folder(out: Path, logits: OptionLogits, log_p: np.ndarray) -> dict | None:
    """Metrics of the scored rows that have an answer, overall and by task type, also into metrics.json; or None."""
    questions = pq.read_table(out / "questions.parquet").to_pydict()
    use = np.flatnonzero(logits.scored & np.array([bool(answer) for answer in questions["answer"]], bool))
    if not len(use):
        return None
    y = np.array([ord(questions["answer"][row]) - ord("a") for row in use])
    metrics = evaluate(np.exp(log_p[use]), y, [questions["task_type"][row] or "unknown" for row in use])
    write_text(out / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return metrics


def warnings_of(logits: OptionLogits, label_ids: list[int]) -> list[str]:
    """What a reader of the numbers must know, with its usual cause."""
    scored, warnings = logits.scored, []
    if not scored.any():
        return ["no row has a score"]
    mass = float(np.nanquantile(logits.label_mass[scored], 0.05))
    tokens = logits.top_token[scored]
    others = float((~np.isin(tokens[tokens >= 0], label_ids)).mean())
    if mass < LOW_MASS or others > MANY_OTHERS:
        warnings.append(
            f"low label mass: its 5th percentile is {mass:.2f}, and in {others:.1%} of rows the likeliest token is no "
            "letter. Usual causes: a prompt other than in training, a 'thinking' model, or a base that was not "
            "fine-tuned. Compare the template with the checkpoint's (`show`)."
        )
    if unscored := np.flatnonzero(~scored).tolist():
        named = ", ".join(f"{shown(logits.ids[row])} ({logits.status[row]})" for row in unscored[:10])
        warnings.append(f"{len(unscored):,} rows have no score: {named}{' …' if len(unscored) > 10 else ''}")
    return warnings
