"""Two systems on the same rows: is one better, and how small a difference could these rows have shown?"""

import numpy as np
from scipy.special import ndtri

from scoring.stats.metrics import row_nll
from scoring.stats.resampling import bootstrap_weights, cluster_count, mcnemar, with_interval

POWER = float(ndtri(0.975) + ndtri(0.8))  # a two-sided 5 % test that finds the effect in 80 % of cases


def compare(first: np.ndarray, second: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> dict:
    """(N, K) probabilities of two systems on the same rows; clusters: (N,) numbers of pictures, or None.

    accuracy: difference (second minus first) with a bootstrap interval over pictures, rows that only one has right,
    McNemar's test (`resampling.mcnemar`; over pictures where rows share them). nll: difference with its interval.
    smallest: the effect that a 5 % test on these rows finds four times in five.
    """
    right = [np.nanargmax(p, 1) == y for p in (first, second)]
    gain = right[1].astype(float) - right[0]
    saved = row_nll(np.nan_to_num(second), y) - row_nll(np.nan_to_num(first), y)
    rng, drawn = np.random.default_rng(0), {"gain": [], "saved": []}
    columns = np.stack([gain, saved], 1)
    for weights in bootstrap_weights(len(y), clusters, rng):
        found = weights @ columns / weights.sum(1, keepdims=True)
        drawn["gain"].append(found[:, 0])
        drawn["saved"].append(found[:, 1])
    gains, saves = (np.concatenate(drawn[name]) for name in ("gain", "saved"))
    count = cluster_count(len(y), clusters)
    return {
        "rows": len(y),
        "pictures": count,
        "accuracy": {
            "first": float(right[0].mean()),
            "second": float(right[1].mean()),
            "difference": with_interval(float(gain.mean()), gains, count),
            "only_first": int((right[0] & ~right[1]).sum()),
            "only_second": int((right[1] & ~right[0]).sum()),
            "mcnemar_p": mcnemar(*right, clusters),
            "smallest": POWER * float(gains.std()),
        },
        "nll": {
            "first": float(row_nll(np.nan_to_num(first), y).mean()),
            "second": float(row_nll(np.nan_to_num(second), y).mean()),
            "difference": with_interval(float(saved.mean()), saves, count),
            "smallest": POWER * float(saves.std()),
        },
    }


def verdict(found: dict, names: tuple[str, str]) -> str:
    """In a sentence what may be said about which is better."""
    told = []
    difference = found["nll"]["difference"]
    if difference["low"] <= 0 <= difference["high"]:
        told.append("their probabilities cannot be told apart on these rows")
    else:
        told.append(f"{names[difference['value'] < 0]} has the better probabilities")
    p, gain = found["accuracy"]["mcnemar_p"], found["accuracy"]["difference"]["value"]
    if not found["accuracy"]["only_first"] + found["accuracy"]["only_second"]:
        told.append("they are right in the same rows")
    elif p >= 0.05:
        told.append(
            f"their accuracies cannot be told apart (a difference under {found['accuracy']['smallest']:.1%} would "
            "hardly be seen)"
        )
    else:
        told.append(f"{names[gain > 0]} has the higher accuracy")
    return "; ".join(told)
