"""The end of a run: its files from its parts, `run.json` last but for the metrics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scoring.files.writing import write_json
from scoring.scores.evaluation import judge, order_report, warnings_of
from scoring.scores.folder import Scores, write_results
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import Calibration
from scoring.stats.sets import SetRequest


@dataclass
class Ending:
    """What is known of a run once every batch has its part. columns: see `folder.columns_of`.

    about: run.json, but for what follows from the logits. label_ids: the letters' tokens. warnings: further ones.
    sets: what the column `set` must hold.
    """

    out: Path
    about: dict
    columns: dict[str, list]
    logits: OptionLogits
    calibrations: list[Calibration]
    label_ids: list[int]
    sets: SetRequest | None = None
    warnings: Sequence[str] = ()

    def finish(self) -> tuple[dict | None, list[str]]:
        """Write everything; (metrics where there are answers, warnings)."""
        start, logits, about = time.monotonic(), self.logits, self.about
        log_p, sets = write_results(self.out, self.columns, logits, self.calibrations, self.sets)
        warnings = warnings_of(logits, self.label_ids, self.calibrations, self.columns["answer"], log_p)
        about["warnings"] = warnings = [*warnings, *self.warnings]
        scored = int(logits.scored.sum())
        about["counts"] |= {"scored": scored, "unscored": len(logits.ids) - scored}
        about["seconds"]["scoring"] = round(about["seconds"]["scoring"] + time.monotonic() - start, 3)
        if orders := order_report(logits):
            about["orders"] = orders
        if sets:
            about["sets"] = sets.about(self.sets)
        write_json(self.out / "run.json", about)
        return judge(Scores(self.out, about, logits, self.calibrations, self.columns)), warnings
