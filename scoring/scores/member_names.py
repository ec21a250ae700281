"""Who the members of a pool are: names that differ, nobody twice, and what each folder or file weighs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoring.scores.members import Source
from scoring.stats.calibration import log_probabilities
from scoring.stats.pools import EnsembleError, likeness


def distinct_names(names: list[str], paths: Sequence[Path]) -> list[str]:
    """The names, or where two are equal those of the files, or numbered ones."""
    if len(set(names)) == len(names):
        return names
    if len(names) == len(paths) and len({path.stem for path in paths}) == len(paths):
        return [path.stem for path in paths]
    return [f"{number}-{name}" for number, name in enumerate(names, 1)]


def refuse_doubles(sources: list[Source], logits: np.ndarray) -> None:
    """EnsembleError where a member is there twice, which would count twice. logits: (M, N, K)."""
    log_p = log_probabilities(logits)
    for later in range(1, len(sources)):
        for earlier in range(later):
            if (but := likeness(log_p[earlier], log_p[later])) is not None:
                raise EnsembleError(
                    f"{sources[earlier].name} of {sources[earlier].path} and {sources[later].name} of "
                    f"{sources[later].path} have the same numbers in every row{but}: one member would count twice. "
                    "Leave one of them out, or give it more weight with --weights"
                )


def weights_of_sources(sources: list[Source], weights: np.ndarray) -> list[str]:
    """What folders and files weigh together, where some hold several members."""
    paths = list(dict.fromkeys(str(source.path) for source in sources))
    if len(paths) < 2 or len(paths) == len(sources):
        return []
    parts = []
    for path in paths:
        share = sum(weight for source, weight in zip(sources, weights) if str(source.path) == path)
        names = [source.name for source in sources if str(source.path) == path]
        parts.append(f"{path} {share:.0%} ({', '.join(names)})")
    return [f"every member has its own weight, so that the sources weigh: {'; '.join(parts)}. Others: --weights"]
