"""What follows from a training's inputs before anything heavy is loaded."""

from functools import cached_property

import numpy as np

from scoring.checkpoints.checkpoint import find_base
from scoring.engine.batch_scorer import machine
from scoring.engine.costs import TokenCost, costs_of
from scoring.errors import first_of
from scoring.inputs.families.registry import policy_of
from scoring.inputs.orders import check_orders
from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from train.identity import TrainingRows, identity_of
from train.inputs import TrainError, TrainingInputs
from train.lora import check_choices


class TrainingPlan:
    """A training's base folder, prompts, rows, number of steps and identity.

    identity: name -> value of everything that its adapter depends on: equal identities give the same adapter. choices:
    the same, apart from the machine.
    Raises ConfigError where the base lacks layers that the choices name, OrdersError where options cannot be shuffled.
    """

    def __init__(self, inputs: TrainingInputs):
        self.inputs, self.config, self.out = inputs, inputs.config, inputs.out
        self.base_folder = find_base(inputs.base)
        check_choices(self.base_folder, self.config)
        if self.config.shuffle_options:
            check_orders(inputs.train, "all", "--shuffle-options")
        policy = policy_of(self.base_folder, inputs.pixels)
        self.preparer = Preparer.of_base(self.base_folder, inputs.template or PromptTemplate(), policy)
        self.letters = LETTERS[: max(len(question.options) for question in [*inputs.train, *inputs.valid])]
        self.rows = TrainingRows(inputs.train, inputs.valid)
        self.steps_per_epoch = -(-len(inputs.train) // self.config.batch)
        self.total_steps = self.config.epochs * self.steps_per_epoch
        self.choices = identity_of(self.config, self.base_folder, self.preparer.template, policy.budget, self.rows)
        self.identity = machine() | self.choices

    @cached_property
    def train_costs(self) -> list[TokenCost]:
        """The training rows' tokens, in the order of the data. Raises TrainError where the base cannot take a row."""
        return self._costs(self.inputs.train)

    @cached_property
    def valid_costs(self) -> list[TokenCost]:
        """The validation rows' tokens. Raises TrainError where the base cannot take a row."""
        return self._costs(self.inputs.valid)

    def check_lengths(self) -> None:
        """Raises TrainError where a prompt is too long. Later uses of the costs do not compute them again."""
        _ = self.train_costs, self.valid_costs

    def step_tokens(self, processes: int) -> int:
        """Tokens that each of so many processes has in a step, on average."""
        return int(np.mean([cost.tokens for cost in self.train_costs]) * self.config.batch) // processes

    def _costs(self, rows: list[Question]) -> list[TokenCost]:
        costs: list[TokenCost] = []
        faults: dict[str, PictureError] = {}
        for row, cost in zip(rows, costs_of(self.preparer, rows, "1")):
            if isinstance(cost, PictureError):
                faults[f"row {row.id!r}: {cost.found}"] = cost
            else:
                costs.append(cost)
        if faults:
            remedies = dict.fromkeys(f"expected {error.expected}; {error.fix}" for error in faults.values())
            raise TrainError("; ".join([first_of(faults), *remedies]))
        return costs
