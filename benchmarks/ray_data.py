"""The library's `Scorer`, driven by Ray Data (`pip install 'ray[data]'`), for tables too large for one process.

    python -m benchmarks.ray_data demo/test.csv demo/checkpoints/fold0 scores/ray

Each of Ray's processes loads the model once, on its own card where there are cards, and answers blocks of rows.
"""

import sys
from pathlib import Path

import numpy as np
import ray

from scoring import Question, Scorer

LETTERS = "abcd"


class Answers:
    """A block of a table's columns -> columns of ids, states and probabilities."""

    def __init__(self, ckpt: str, images: str):
        self.scorer, self.images = Scorer.load(ckpt), Path(images)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        options = zip(*(rows[letter].astype(str) for letter in LETTERS))
        cells = zip(rows["id"].astype(str), rows["path"], rows["question"], options, rows["task_hint"])
        questions = [
            Question(id, number, (self.images / path,), question, texts, task_hint=hint or "")
            for number, (id, path, question, texts, hint) in enumerate(cells)
        ]
        answers = self.scorer.score(questions)
        columns = {f"p_{letter}": answers.probabilities[:, column] for column, letter in enumerate(LETTERS)}
        return {"id": rows["id"], "status": np.array(answers.status), **columns}


def main(table: str, ckpt: str, out: str) -> None:
    """Score `table` with `ckpt`, and write the folder `out` of Parquet files."""
    ray.init()
    cards = int(ray.cluster_resources().get("GPU", 0))
    # without cards, half of each of two cores, so that Ray's own reading and writing find room
    processes = {"num_gpus": 1, "concurrency": cards} if cards else {"num_cpus": 0.5, "concurrency": 2}
    arguments = (ckpt, str(Path(table).resolve().parent))
    rows = ray.data.read_csv(table).map_batches(Answers, fn_constructor_args=arguments, batch_size=64, **processes)
    rows.write_parquet(str(Path(out).resolve()))


if __name__ == "__main__":
    main(*sys.argv[1:])
