"""Calls of the rooms below that are public as they are: here their errors come in a program's words."""

from scoring.library.wording import for_callers
from scoring.stats import sets
from scoring.tables import reading

read_questions = for_callers(reading.read_questions)
read_table = for_callers(reading.read_table)


class SetRequest(sets.SetRequest):
    __doc__ = sets.SetRequest.__doc__

    @for_callers
    def __post_init__(self) -> None:
        super().__post_init__()
