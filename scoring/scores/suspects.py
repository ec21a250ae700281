"""Labels that are probably wrong: labelled rows whose answer is hardly credible to a model that never trained on them.

cleanlab does the work: a label's quality is its self-confidence, the probability of the labelled option, and confident
learning says how many labels are wrong (C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty
in Dataset Labels", JAIR 70, 2021; J. Kuan, J. Mueller, "Model-agnostic label quality scoring to detect real-world label
errors", ICML DataPerf 2022). `benchmarks/suspects.py` compares this choice with cleanlab's other methods.

Licence: cleanlab is Apache-2.0 from version 2.8 on; 2.7 and earlier are AGPL-3.0, which setup.cfg rules out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from scoring.files.reading import FileError
from scoring.files.writing import write_columns
from scoring.inputs.prompt import LETTERS
from scoring.scores.exposure import TRAINING
from scoring.scores.folder import Scores

FILE = "suspects.csv"
LEAST_ROWS = 20  # of suspects.csv, flagged or not
WORST = 10  # ids named in metrics.json


@dataclass
class Suspects:
    """quality: (N,) in [0, 1], low where the label is not credible. flags: (N,) bool, probably wrong.

    order: (N,) row numbers, the flagged ones first, each part by rising quality.
    """

    quality: np.ndarray
    flags: np.ndarray
    order: np.ndarray


def find_suspects(p: np.ndarray, y: np.ndarray) -> Suspects:
    """Label quality, flags and order of rows that the model was not trained on.

    p: (N, K) calibrated probabilities, NaN or 0 for options that a row does not have. y: (N,) the labelled option's
    index. The quality is p[i, y[i]]. As many of the lowest are flagged as confident learning counts (labels whose row
    gives another option a probability that is usual for right ones), less those that are the likeliest option anyway.
    Fewer than two rows for each option do not show what is usual: none is flagged. The result does not depend on the
    order of rows or options. Raises ValueError where the shapes do not fit.
    """
    from cleanlab.filter import find_label_issues  # here: it loads scikit-learn for a second
    from cleanlab.rank import get_label_quality_scores

    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape}; expected (N, K) and (N,)")
    if not len(y):
        return Suspects(np.empty(0), np.empty(0, bool), np.empty(0, int))
    p, flags = np.nan_to_num(np.asarray(p, float)), np.zeros(len(y), bool)
    quality = get_label_quality_scores(y, p, method="self_confidence")
    if len(y) >= 2 * p.shape[1]:
        balanced, classes = as_balanced_classes(p, y)
        flags = find_label_issues(classes, balanced, filter_by="low_self_confidence", n_jobs=1)
        flags &= quality < p.max(1)
    return Suspects(quality, flags, np.lexsort((quality, ~flags)))


def as_balanced_classes(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same rows with their options in an order that makes letters equal: (N, K) probabilities and (N,) labels.

    Confident learning has one threshold for each class, the mean probability of its labels. A letter is no class: it
    says where an option was. One that is rarely right, such as the `e` of a table with few rows of five options, would
    have a threshold from a few rows, wrong ones among them, and flag hundreds. So labels are dealt to the positions in
    turn, by their probability and back and forth (0 … K-1, K-1 … 0), which gives all positions about the same
    threshold; the other options follow by falling probability.
    """
    rows, (count, options) = np.arange(len(y)), p.shape
    labelled = p[rows, y]
    turn = np.empty(count, int)
    turn[np.argsort(labelled, kind="stable")] = rows % (2 * options)
    position = np.where(turn < options, turn, 2 * options - 1 - turn)
    others = p.copy()
    others[rows, y] = -1.0  # sorted to the end, and cut off there
    from_label = np.column_stack([labelled, -np.sort(-others, axis=1)[:, :-1]])
    return np.take_along_axis(from_label, (np.arange(options) - position[:, None]) % options, axis=1), position


def write_suspects(scores: Scores, rows: np.ndarray) -> dict[str, Any]:
    """Write suspects.csv for those of the labelled `rows` that no member was trained on; its summary for metrics.json.

    The file has the rows of `suspects_of`, as text. Where every row was trained on, no file is written, and the summary
    has a `reason`.
    """
    path, untrained = scores.folder / FILE, _untrained(scores, rows)
    count, left_out = len(untrained), len(rows) - len(untrained)
    summary: dict[str, Any] = {"rows": count, "flagged": 0, "left_out": left_out, "file": None, "worst": []}
    if not count:
        path.unlink(missing_ok=True)
        return summary | {"reason": "every labelled row was trained on"}
    columns = {
        name: [f"{value:.6f}" if isinstance(value, float) else str(value) for value in values]
        for name, values in suspects_of(scores, rows).items()
    }
    write_columns(path, columns | {"flagged": [str(int(flag == "True")) for flag in columns["flagged"]]})
    first = {name: columns[name][0] for name in ("id", "answer", "pred")} | {"p_pred": float(columns["p_pred"][0])}
    flagged = columns["flagged"].count("True")
    return summary | {"flagged": flagged, "file": FILE, "worst": columns["id"][:WORST], "first": first}


def suspects_of(scores: Scores, rows: np.ndarray) -> dict[str, list[Any]]:
    """name -> a value for each suspect of those of the labelled `rows` that no member was trained on.

    The flagged rows and at least the 20 least credible ones (all where there are fewer), least credible first: id,
    answer, pred, p_answer, p_pred, label_quality, flagged, picture, question.
    """
    rows = _untrained(scores, rows)
    p, y = np.nan_to_num(np.exp(scores.log_p[rows])), scores.answers(rows)
    suspects, pred = find_suspects(p, y), p.argmax(1)
    written = suspects.order[: max(int(suspects.flags.sum()), LEAST_ROWS)]
    numbers, labels, answers = rows[written].tolist(), y[written], pred[written]
    return {
        "id": [scores.logits.ids[row] for row in numbers],
        "answer": [LETTERS[label] for label in labels],
        "pred": [LETTERS[answer] for answer in answers],
        "p_answer": p[written, labels].tolist(),
        "p_pred": p[written, answers].tolist(),
        "label_quality": suspects.quality[written].tolist(),
        "flagged": suspects.flags[written].tolist(),
        "picture": [scores.questions["picture"][row] or "" for row in numbers],
        "question": [scores.questions["question"][row] or "" for row in numbers],
    }


def _untrained(scores: Scores, rows: np.ndarray) -> np.ndarray:
    """Those of the rows that no member was trained on."""
    untrained: np.ndarray = rows[(scores.exposed[rows] & TRAINING == 0).all(1)]
    return untrained


def read_flagged(folder: Path) -> set[str]:
    """Ids of the rows that suspects.csv of a SCORES folder flags; none without that file. Raises FileError."""
    path = folder / FILE
    if not path.exists():
        return set()
    text = {"id": pa.string(), "flagged": pa.string()}
    try:
        table = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(include_columns=list(text), column_types=text),
        )
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path}: {error}; expected what `evaluate` wrote; run it again") from None
    return {id for id, flag in zip(table["id"].to_pylist(), table["flagged"].to_pylist()) if flag == "1"}
