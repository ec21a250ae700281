"""What a report page is made of: SCORES folders with pictures, and a benchmark's file."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from scoring.inputs.questions import Question
from scoring.report.records import Details, read_record
from scoring.report.tables import details_table, to_text
from scoring.scores.folder import write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">{{ 7*7 }} \'"&<b>'


def details_text(metrics: dict) -> str:
    """What `evaluate` prints of metrics.json below the metrics of all rows and groups."""
    return to_text(details_table(read_record(Details, metrics)))


def picture(path: Path, seed: int = 0, grain: int = 12) -> Path:
    rng = np.random.default_rng(seed)
    forms = Image.fromarray(rng.integers(0, 256, (grain, grain * 4 // 3, 3), dtype=np.uint8))
    forms.resize((640, 480), Image.BICUBIC).save(path, quality=85)
    return path


def folder(out, n=40, members=1, hostile=False, answers=True, pictures=10, unscored=(), orders="1", grain=12):
    """A SCORES folder with `pictures` pictures; rows in `unscored` have no score."""
    rng = np.random.default_rng(members)
    out.mkdir(parents=True)
    files = [picture(out / f"{number}.jpg", number, grain) for number in range(pictures)]
    count = 4 if orders == "cyclic" else 1
    z = rng.normal(0, 2, (n, members, count, 4)).astype(np.float32)
    names = [f"m{member}" for member in range(members)]
    ids = [f"row{row}" for row in range(n)]
    if hostile:
        ids[0] = HOSTILE
    status = ["picture: a broken picture" if row in unscored else "ok" for row in range(n)]
    z[list(unscored)] = np.nan
    shape = (n, members, count)
    logits = OptionLogits(ids, names, z, np.ones(shape, np.float32), np.ones(shape, np.int64), status, orders)
    best = np.nan_to_num(z).mean((1, 2)).argmax(1)
    questions = [
        Question(
            id,
            row + 1,
            (files[row % pictures],) if pictures else (),
            HOSTILE if hostile else f"무엇인가요 {row}?",
            tuple(HOSTILE + letter if hostile else f"option {letter}{row}" for letter in "wxyz"),
            "abcd"[best[row] if row % 4 else (best[row] + 1) % 4] if answers else "",
            HOSTILE if hostile else ("count" if row % 3 else "object"),
        )
        for row, id in enumerate(ids)
    ]
    (out / "logits").mkdir()
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()] * members)
    record = {
        "command": ["cli.py", "score", HOSTILE if hostile else "x.csv"],
        "data": {"file": HOSTILE if hostile else "x.csv", "sha256": "0" * 64},
        "checkpoints": [{"member": name, "fingerprint": "f", "temperature": 1.0} for name in names],
        "identity": {"letters": "abcd", "orders": orders},
        "warnings": [HOSTILE] if hostile else [],
    }
    (out / "run.json").write_text(json.dumps(record))
    return out


def bench_json(out, hostile=False):
    """What `bench` writes, of two ways and three rows."""
    out.mkdir()
    texts = ["b", HOSTILE if hostile else "none", "a"]

    def way(title, **more):
        common = {
            "title": title,
            "seconds": [1.0],
            "rows_per_second": 3.0,
            "ratio": 1.0,
            "seconds_per_row": {"p50": 0.1, "p95": 0.2},
            "peak_device_bytes": None,
            "peak_host_bytes": 2**30,
            "joules_per_row": None,
            "accuracy": {"value": 0.5, "low": 0.2, "high": 0.8},
            "nll": None,
            "unanswered": 0,
            "fallbacks": 1,
            "unsteady": 0,
            "cost": {"rows": 100, "hours": 1.0, "money": 2.0},
        }
        return common | more

    nll = {"value": 0.5, "low": 0.4, "high": 0.6}
    report = {
        "command": ["cli.py", "bench"],
        "data": {"file": "x.csv", "sha256": "0" * 64},
        "checkpoint": "fold0",
        "fingerprint": "f",
        "device": "CPU",
        "dtype": "float32",
        "quantization": "nf4",
        "weights": "16bit",
        "compiled": False,
        "versions": {"torch": "1"},
        "repeats": 1,
        "price_per_hour": 2.0,
        "rows": 3,
        "ways": {
            "seed": way("generate", against_engine={"differ": ["r1"], "mcnemar_p": 0.5}),
            "engine": way("engine (score)", rows_per_second=9.0, ratio=3.0, nll=nll),
        },
        "first_token": {"rows": 3, "top_is_a_label": 3, "violations": []},
        "per_row": [
            {
                "id": f"r{row}",
                "picture": "",
                "question": "q",
                "options": ["w", "x", "y", "z"],
                "answer": "b",
                "task_type": "",
                "ways": {
                    "seed": {"letter": "a" if row == 1 else "b", "text": texts[row], "fallback": row == 1},
                    "engine": {"letter": "b", "p": [0.1, 0.7, 0.1, 0.1]},
                },
            }
            for row in range(3)
        ],
    }
    (out / "bench.json").write_text(json.dumps(report))
    return out
