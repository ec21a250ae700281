"""Small actors in the place of a model's, for tests of who gets which batch. Nothing heavy: each is a process."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from scoring.errors import CallError


@dataclass(frozen=True)
class Row:
    """As much of a question as messages name."""

    id: str


@dataclass(frozen=True)
class SmallBatch:
    """A batch, and what befalls an actor that gets it. fate: `kill`, `kill once`, `raise` or `slow`."""

    number: int
    fate: str = ""

    @property
    def questions(self) -> list[Row]:
        return [Row(f"row{self.number}")]


@dataclass
class SmallActor:
    """Answers with a batch's number and its own process. fate: of the actor, `die at load` or `slow at load`."""

    folder: Path
    fate: str = ""
    given: list[str] = field(default_factory=list)

    def load(self) -> int:
        if self.fate == "die at load":
            os._exit(1)
        if self.fate == "slow at load":
            time.sleep(1)
        return os.getpid()

    def adopt(self, word: str) -> None:
        self.given.append(word)

    def words(self) -> list[str]:
        return self.given

    def sleep(self) -> None:
        time.sleep(5)

    def refuse(self) -> None:
        raise CallError("no such files")

    def answer(self, batch: SmallBatch, orders: str, split: int) -> tuple[int, int]:
        with open(self.folder / f"asked{batch.number}", "a") as asked:
            asked.write(".")
        mark = self.folder / f"killed{batch.number}"
        if batch.fate == "kill" or (batch.fate == "kill once" and not mark.exists()):
            mark.touch()
            time.sleep(0.1)  # the others of this actor are in hand by then
            os._exit(1)
        if batch.fate == "raise":
            raise CallError(f"batch {batch.number} has no letters")
        if batch.fate == "slow":
            time.sleep(0.25)
        return batch.number, os.getpid()
