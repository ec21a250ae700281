"""`Answer`: what a library call says of one row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scoring.inputs.prompt import LETTERS
from scoring.scores.logits import SCORED

NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answer(Mapping[str, float]):
    """One row's answer: a mapping from the letters of its options to their probabilities, which sum to 1.

    A row without a score has no probabilities, and "" as its letter: `status` says why.

    letter: of the likeliest option. probabilities: what the mapping holds. margin: the probability of the likeliest
    option minus that of the second; NaN without a score. label_mass: the share of the model's whole softmax that falls
    on the letters, the mean over members and orders; NaN where it is not known. status: `ok`, or why there is no score.
    options: the options' texts, () where they are not known. members: the probabilities of each member of a pool that
    was asked, by its name.

    >>> answer = Answer("q1", "b", {"a": 0.25, "b": 0.75}, 0.5)
    >>> answer.letter, answer["b"], max(answer, key=answer.get), answer == {"a": 0.25, "b": 0.75}
    ('b', 0.75, 'b', True)
    """

    id: str
    letter: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    margin: float = NAN
    label_mass: float = NAN
    status: str = SCORED
    options: tuple[str, ...] = ()
    members: dict[str, dict[str, float]] = field(default_factory=dict)

    def __getitem__(self, letter: str) -> float:
        return self.probabilities[letter]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probabilities)

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        if not self.scored:
            return f"Answer({self.id!r}, no score: {self.status})"
        probabilities = ", ".join(f"{letter} {p:.3f}" for letter, p in self.probabilities.items())
        return f"Answer({self.id!r}, {self.letter!r}: {probabilities})"

    @property
    def scored(self) -> bool:
        """Whether the row has a score."""
        return self.status == SCORED

    @property
    def option(self) -> str:
        """The text of the likeliest option; "" without a score, or where the texts are not known."""
        index = LETTERS.index(self.letter) if self.letter else len(self.options)
        return self.options[index] if index < len(self.options) else ""
