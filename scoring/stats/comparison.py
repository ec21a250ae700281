"""Two systems on the same rows: is one better, and how small a difference could these rows have shown?"""

from typing import Any

import numpy as np
from scipy.special import ndtri

from scoring.stats.metrics import row_nll
from scoring.stats.resampling import bootstrap_weights, cluster_count, mcnemar, with_interval

POWER = float(ndtri(0.975) + ndtri(0.8))  # standard errors of the effect that a 5 % test finds with a power of 80 %


def compare(first: np.ndarray, second: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> dict[str, Any]:
    """The second system against the first, from their (N, K) probabilities of the same rows.

    y: (N,) indices of the right options. clusters: (N,) numbers of pictures, or None. The keys of the result:

    rows, pictures: how many. accuracy, nll: first and second; their difference, second minus first, with a bootstrap
    interval over pictures; smallest, the true difference that a two-sided 5 % test on these rows finds four times in
    five. accuracy too: only_first and only_second, rows that only one has right; mcnemar_p (`resampling.mcnemar`). NLL
    is in nats.
    """
    first_right, second_right = (np.nanargmax(p, 1) == y for p in (first, second))
    first_nll, second_nll = (row_nll(np.nan_to_num(p), y) for p in (first, second))
    gain = second_right.astype(float) - first_right
    change = second_nll - first_nll
    differences = np.stack([gain, change], 1)
    means = [
        weights @ differences / weights.sum(1, keepdims=True)
        for weights in bootstrap_weights(len(y), clusters, np.random.default_rng(0))
    ]
    gain_draws, change_draws = (np.concatenate([chunk[:, column] for chunk in means]) for column in (0, 1))
    count = cluster_count(len(y), clusters)
    return {
        "rows": len(y),
        "pictures": count,
        "accuracy": {
            "first": float(first_right.mean()),
            "second": float(second_right.mean()),
            "difference": with_interval(float(gain.mean()), gain_draws, count),
            "only_first": int((first_right & ~second_right).sum()),
            "only_second": int((second_right & ~first_right).sum()),
            "mcnemar_p": mcnemar(first_right, second_right, clusters),
            "smallest": POWER * float(gain_draws.std()),
        },
        "nll": {
            "first": float(first_nll.mean()),
            "second": float(second_nll.mean()),
            "difference": with_interval(float(change.mean()), change_draws, count),
            "smallest": POWER * float(change_draws.std()),
        },
    }


def verdict(comparison: dict[str, Any], names: tuple[str, str]) -> str:
    """Which system is better, in a sentence that says no more than the tests do.

    comparison: of `compare`. names: of the first and the second system.
    """
    first, second = names
    change, accuracy = comparison["nll"]["difference"], comparison["accuracy"]
    if change["low"] <= 0 <= change["high"]:
        probabilities = "their probabilities cannot be told apart on these rows"
    else:
        probabilities = f"{second if change['value'] < 0 else first} has the better probabilities"
    if not accuracy["only_first"] + accuracy["only_second"]:
        answers = "they are right in the same rows"
    elif accuracy["mcnemar_p"] >= 0.05:
        answers = (
            f"their accuracies cannot be told apart (a difference under {accuracy['smallest']:.1%} would "
            "hardly be seen)"
        )
    else:
        answers = f"{second if accuracy['difference']['value'] > 0 else first} has the higher accuracy"
    return f"{probabilities}; {answers}"
