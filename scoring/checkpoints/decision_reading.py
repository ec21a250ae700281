"""A checkpoint of others with `decision.json` or `decision_template.jinja`: what a score takes from them. No torch."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from scoring.checkpoints.decision_files import (
    DECISION_CONFIG,
    DECISION_TEMPLATE,
    DecisionFileError,
    read_template,
)
from scoring.checkpoints.weights import CheckpointError
from scoring.files.reading import read_object
from scoring.inputs.prompt import PromptTemplate
from scoring.stats.calibration import Calibration


@dataclass
class DecisionConfig:
    """`decision.json`. The fields as transformers' class of that name describes them; those not named are ignored."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    adapter: str | None = None

    def __post_init__(self) -> None:
        if wrong := [value for value in self.temperature.values() if not 0 < value < float("inf")]:
            raise ValueError(f"temperature is {wrong[0]}; expected one above 0")
        if not self.adapter:
            return
        path = PurePosixPath(self.adapter)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in self.adapter:
            raise ValueError(f"adapter is {self.adapter!r}; expected a folder inside this one")


@dataclass(frozen=True)
class Decisions:
    """What the two files say. template: None where their prompt is not known. fault: why, and what to do."""

    config: DecisionConfig
    template: PromptTemplate | None
    fault: str = ""

    @property
    def calibration(self) -> Calibration:
        """The temperature of questions with options, in one order."""
        temperature = self.config.temperature.get("choice", 1.0)
        return Calibration(temperature, note=f"from {DECISION_CONFIG}", fingerprint={"orders": "1"})

    @property
    def summary(self) -> str:
        """What is taken from the files, for a note on the checkpoint, and what is not in them."""
        known = "prompt, letters and temperature" if self.template else "temperature"
        return (
            f"{known} ({self.calibration.temperature:.3f}) are those of {DECISION_CONFIG}; where no option says "
            "otherwise, it is scored with 448x448 pixels, NF4"
        )


def read_decisions(folder: Path) -> Decisions | None:
    """What the files of a folder say; None where it has neither. Raises FileError where one is damaged."""
    config, path = read_object(DecisionConfig, folder / DECISION_CONFIG), folder / DECISION_TEMPLATE
    if config is None and not path.exists():
        return None
    config = config or DecisionConfig()
    try:
        template = read_template(folder)
    except DecisionFileError as error:
        raise CheckpointError(str(error)) from None
    remedy = "`score --template FILE` takes its texts from a TOML file that you write"
    if template is None:
        found = "another tool's prompt" if path.exists() else f"no prompt of its own (only {DECISION_CONFIG})"
        return Decisions(config, None, f"{folder}: {found}, which cannot be taken apart into texts; {remedy}")
    labels = config.labels.get("choice") or list(template.labels.upper())
    if labels != list(template.labels[: len(labels)]):
        shown = ", ".join(labels[:4])
        return Decisions(config, None, f"{folder}: {DECISION_CONFIG} has the labels {shown}, not its letters; {remedy}")
    return Decisions(config, template)
