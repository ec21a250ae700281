"""The end of a run: its files from its parts, `run.json` last but for the metrics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scoring.results.calibration import Calibration
from scoring.results.files import write_json
from scoring.results.folder import Scores, conformal_sets, write_results
from scoring.results.judging import judge, order_report, warnings_of
from scoring.results.logits import OptionLogits


@dataclass
class Ending:
    """What is known of a run once every batch has its part. columns: see `folder.columns_of`.

    about: run.json, but for what follows from the logits. label_ids: the letters' tokens. warnings: further ones.
    sets: how often a set must hold the right option.
    """

    out: Path
    about: dict
    columns: dict[str, list]
    logits: OptionLogits
    calibrations: list[Calibration]
    label_ids: list[int]
    sets: float | None = None
    warnings: Sequence[str] = ()

    def finish(self) -> tuple[dict | None, list[str]]:
        """Write everything; (metrics where there are answers, warnings)."""
        start, logits, about = time.monotonic(), self.logits, self.about
        log_p = write_results(self.out, self.columns, logits, self.calibrations, self.sets)
        warnings = warnings_of(logits, self.label_ids, self.calibrations, self.columns["answer"], log_p)
        about["warnings"] = warnings = [*warnings, *self.warnings]
        scored = int(logits.scored.sum())
        about["counts"] |= {"scored": scored, "unscored": len(logits.ids) - scored}
        about["seconds"]["scoring"] = round(about["seconds"]["scoring"] + time.monotonic() - start, 3)
        if orders := order_report(logits):
            about["orders"] = orders
        if self.sets:
            _, quantile, promise = conformal_sets(log_p, self.calibrations, self.sets)
            about["sets"] = {"level": self.sets, "quantile": quantile, "guarantee": promise}
        write_json(self.out / "run.json", about)
        return judge(Scores(self.out, about, logits, self.calibrations, self.columns)), warnings
