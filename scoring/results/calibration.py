"""Temperature scaling, and the file that says which checkpoint a temperature belongs to.

A temperature divides all logits of a row: T > 1 where the model is surer than it is right. It never changes the
answer. Fitted by the likelihood of labelled rows that the checkpoint was not trained on
(Guo et al., On Calibration of Modern Neural Networks, 2017).
"""

from dataclasses import asdict, dataclass, field

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BOUNDS = (0.05, 20.0)  # perfect separation has its best temperature at 0, labels that are all wrong at infinity


@dataclass
class Calibration:
    """`calibration.json`: a temperature, what it was fitted on, and the fingerprint it is good for."""

    temperature: float = 1.0
    rows: int = 0
    nll_before: float = float("nan")
    nll_after: float = float("nan")
    standard_error: float = float("nan")  # of log(temperature)
    note: str = ""
    fingerprint: dict = field(default_factory=dict)

    def to_json(self) -> dict:
        return {
            key: (None if isinstance(value, float) and not np.isfinite(value) else value)
            for key, value in asdict(self).items()
        }


def log_probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(…, K) log-softmax of logits over the options that are there; NaN where there is none."""
    missing = np.isnan(logits)
    filled = np.where(missing, -np.inf, logits.astype(np.float64) / temperature)
    filled = np.where(missing.all(-1, keepdims=True), 0.0, filled)
    return np.where(missing, np.nan, log_softmax(filled, axis=-1))


def nll(logits: np.ndarray, answers: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of (N, K) logits; answers (N,) are option indices."""
    return float(-log_probabilities(logits, temperature)[np.arange(len(answers)), answers].mean())


def fit_temperature(logits: np.ndarray, answers: np.ndarray, fingerprint: dict | None = None) -> Calibration:
    """The temperature with the lowest NLL on (N, K) logits and (N,) answers.

    Fewer than 20 rows, or a best temperature at the bounds, leave T = 1 or the bound, with a note that says so.
    """
    calibration = Calibration(rows=len(answers), fingerprint=fingerprint or {})
    if len(answers) < 20:
        calibration.note = f"{len(answers)} labelled rows are too few to fit a temperature (20 at least): T = 1"
        return calibration
    low, high = np.log(BOUNDS)
    best = minimize_scalar(
        lambda log_t: nll(logits, answers, np.exp(log_t)), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    if min(best.x - low, high - best.x) < 1e-3:
        what = (
            "all rows are right: any sharper is likelier" if best.x < 0 else "the logits say nothing about these labels"
        )
        calibration.note = f"no inner best temperature ({what}): kept at the bound"
    calibration.temperature = float(np.exp(best.x))
    calibration.nll_before, calibration.nll_after = nll(logits, answers), nll(logits, answers, calibration.temperature)
    if calibration.nll_after > calibration.nll_before:  # never worse than no calibration
        calibration.temperature, calibration.nll_after = 1.0, calibration.nll_before
    probabilities = np.exp(log_probabilities(logits, calibration.temperature))
    scaled = np.nan_to_num(logits.astype(np.float64) / calibration.temperature)
    probabilities = np.nan_to_num(probabilities)
    variance = (probabilities * scaled**2).sum(1) - (probabilities * scaled).sum(1) ** 2
    calibration.standard_error = float(1 / np.sqrt(max(variance.sum(), 1e-12)))
    return calibration
