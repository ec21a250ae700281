"""The results of a table that no process holds, written some rows at a time; the files appear when all are there."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.files.writing import columns_as_csv, whole_file
from scoring.scores.folder import Columns, typed_columns
from scoring.scores.logits import OptionLogits
from scoring.scores.probabilities import (
    member_log_probabilities,
    pool_members,
    predictions,
    probability_columns,
    write_submission_of,
)
from scoring.stats.calibration import Calibration
from scoring.stats.sets import OptionSets, SetRequest, conformal_sets
from scoring.tables.sample import SampleSubmission


class ResultWriter:
    """Writes what `write_results` writes: enter it, `add` the rows, and leave it. After an error nothing is left.

    answers: whether any row has one. sample: see `ResultOptions`; with one, the letters of all rows are kept.
    """

    def __init__(
        self,
        out: Path,
        calibrations: list[Calibration],
        answers: bool,
        sets: SetRequest | None = None,
        sample: SampleSubmission | None = None,
    ):
        self.out, self.calibrations, self.answers = out, calibrations, answers
        self.request, self.sample = sets, sample
        self.sets: OptionSets | None = None  # those of the last rows
        self.rows = 0  # written so far
        self._stack = ExitStack()
        self._csv: dict[str, BinaryIO] = {}
        self._questions: pq.ParquetWriter | None = None
        self._ids: list[str] = []
        self._letters: list[str] = []

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None and self.sample:
            write_submission_of(self.out / "submission.csv", self._ids, self._letters, self.sample)

    def add(self, columns: Columns, logits: OptionLogits) -> None:
        """Write these rows."""
        members = member_log_probabilities(logits, self.calibrations, columns["task_type"])
        log_p = pool_members(members)
        answers = columns["answer"] if self.answers else None
        self._add_questions(pa.table(typed_columns(columns)))
        if len(logits.members) > 1:
            (self.out / "members").mkdir(exist_ok=True)
            for index, (name, member) in enumerate(zip(logits.members, members)):
                of_member = probability_columns(logits.of_member(index), member, answers)
                self._add_csv(f"members/{name}.csv", of_member)
        if self.request:
            self.sets = conformal_sets(log_p, self.calibrations, self.request, members, self.rows)
        held = self.sets.held if self.sets else None
        self._add_csv("probabilities.csv", probability_columns(logits, log_p, answers, held))
        letters = predictions(logits, log_p)
        self.rows += len(letters)
        if self.sample:
            self._ids += logits.ids
            self._letters += letters
        else:
            self._add_csv("submission.csv", {"id": logits.ids, "answer": letters})

    def _add_csv(self, name: str, columns: dict[str, list[str] | pa.Array]) -> None:
        text = columns_as_csv(columns)
        if name in self._csv:
            text = text[text.index("\n") + 1 :]  # without the header
        else:
            self._csv[name] = self._stack.enter_context(whole_file(self.out / name))
        self._csv[name].write(text.encode())

    def _add_questions(self, table: pa.Table) -> None:
        """A row group for each call."""
        if self._questions is None:
            file = self._stack.enter_context(whole_file(self.out / "questions.parquet"))
            self._questions = self._stack.enter_context(pq.ParquetWriter(file, table.schema))
        self._questions.write_table(table.cast(self._questions.schema), row_group_size=max(1, len(table)))
