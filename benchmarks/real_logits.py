"""What calibration, sets, thresholds and pools are worth on the logits of 20 real vision-language models.

    python -m benchmarks.real_logits --data FOLDER --out FILE

FOLDER holds `mmbench.parquet` and `oodcv.parquet`: for each model (`member`) and question (`id`) the next-token logits
of the option letters `a` to `f`, the `answer`, and MMBench's `task_type`. They come from the files under `output/` of
EnSec-AI/VLM-Uncertainty-Bench (MIT licence; Kostumov et al., Uncertainty-Aware Evaluation for Vision-Language Models,
2024). `e` and `f` are "I don't know" and "None of the above", which are never right.

First the published table: 60 figures of 10 models, computed by this product's functions; exit code 1 if one differs.
Then what the product is worth on rows that it was not fitted on, over random halvings. MMBench asks each of its 1,176
questions two to four times, with its options rotated: halves are drawn by question there, and every test and interval
counts questions, not rows. The published table is the exception: its halves are drawn by row.
"""

import sys
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import click
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import scoring
from scoring.files.writing import write_json
from scoring.stats.calibration import LabelledRows, calibrate, fit_temperature, log_probabilities, row_losses
from scoring.stats.comparison import compare
from scoring.stats.metrics import ece, noise_floor
from scoring.stats.pool_weights import apply_weights, convex_weights, equal_weights, fit_weights
from scoring.stats.pools import pool
from scoring.stats.resampling import clusters_of, share_of
from scoring.stats.selective import METHODS, nonconformity, option_sets, set_quantile, threshold_for
from scoring.stats.sets import SetRequest, conformal_sets

LETTERS = "abcdef"
NAMES = {"mmbench": "MMBench", "oodcv": "OOD-CV"}
LEVEL, LEVELS = 0.9, (0.8, 0.9, 0.95)  # coverage of sets: in the published table, and in ours
WANTED = 0.9  # target accuracy of answers above a threshold
FLOOR_DRAWS = 200  # of a noise floor
SIZES = (2, 5, 10, 20)  # members of a pool
WAYS = ("raw linear", "raw log", "T each, linear", "T each, log", "T each, log, pool T")
BEST, EQUAL = "best member", "equal weights"
FITTED = {"fitted weights": "fit", "greedy weights": "greedy"}
ALWAYS, PULL = "fitted, always", 0.01  # PULL: penalty of weights that differ from equal ones
LABELLED = {131: 6, 437: 6, 2188: 3}  # number of labelled rows: at most so many seeds
MEMBERS = (10, 20)  # members of a pool with weights from so many labelled rows

# Accuracy, mean set size and UAcc as printed in the source's README, in per cent and options: MMBench, then OOD-CV.
PUBLISHED = {
    "llava-v1.6-vicuna-13b": ((76.75, 2.34, 90.41), (72.93, 2.18, 86.29)),
    "Monkey-Chat": ((76.98, 2.70, 83.41), (70.60, 2.92, 63.22)),
    "llava-v1.6-vicuna-7b": ((75.56, 2.37, 87.87), (73.70, 2.34, 82.81)),
    "internlm-xcomposer2-vl-7b": ((71.77, 2.72, 69.98), (70.04, 2.20, 80.49)),
    "Yi-VL-6B": ((75.24, 2.47, 84.56), (73.91, 2.02, 95.05)),
    "cogagent-vqa-hf": ((74.78, 2.33, 85.56), (68.57, 2.46, 71.14)),
    "MobileVLM_V2-7B": ((75.97, 2.53, 84.19), (66.53, 2.61, 64.35)),
    "MoE-LLaVA-Phi2-2.7B-4e": ((73.73, 2.54, 82.83), (74.82, 1.89, 100.73)),
    "mplug-owl2-llama2-7b": ((73.05, 2.55, 78.40), (73.28, 2.09, 89.24)),
    "Qwen-VL-Chat": ((71.40, 2.70, 69.58), (54.22, 3.32, 40.28)),
}


@dataclass
class Benchmark:
    """One set of questions. logits: (M, N, 6) of M members; answers: (N,) indices; task_types: (N,), "" where unknown;
    questions: (N,) numbers, equal for copies of one question with rotated options; None where all rows differ."""

    name: str
    members: list[str]
    logits: np.ndarray
    answers: np.ndarray
    task_types: np.ndarray
    questions: np.ndarray | None

    def clusters(self, rows: np.ndarray) -> np.ndarray | None:
        """(n,) numbers of the rows' questions; None where all differ."""
        return None if self.questions is None else clusters_of(self.questions[rows])

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Random rows, at least `count`, and all others; copies of one question stay together."""
        if self.questions is None:
            order = rng.permutation(len(self.answers))
            return np.sort(order[:count]), np.sort(order[count:])
        order = rng.permutation(self.questions.max() + 1)
        rows = np.bincount(self.questions)[order].cumsum()
        drawn = np.isin(self.questions, order[: np.searchsorted(rows, count) + 1])
        return np.flatnonzero(drawn), np.flatnonzero(~drawn)


def read_benchmark(path: Path) -> Benchmark:
    """Members by name, rows in the order of the file, which must be the same for all members."""
    table = pd.read_parquet(path)
    by_member = {str(name): rows for name, rows in table.groupby("member", observed=True, sort=True)}
    first = next(iter(by_member.values()))
    for name, rows in by_member.items():
        if not (rows["id"].to_numpy() == first["id"].to_numpy()).all():
            other = next(iter(by_member))
            raise click.ClickException(f"{path}: the rows of {name} are not those of {other}, or in another order")
    answers = np.array([LETTERS.index(letter) for letter in first["answer"]])
    types = first["task_type"].astype(str) if "task_type" in first else pd.Series([""] * len(first))
    # MMBench numbers the rotated copies of a question 1,000,000, 2,000,000 and 3,000,000 higher
    questions = clusters_of([str(int(row) % 1_000_000) for row in first["id"]])
    logits = np.stack([rows[list(LETTERS)].to_numpy(np.float64) for rows in by_member.values()])
    return Benchmark(path.stem, list(by_member), logits, answers, types.to_numpy(), questions)


# ------------------------------------------------------------------ the published table
def avx512_order(p: np.ndarray) -> np.ndarray:
    """(N, K) options from the likeliest down, as the source's `numpy.argsort(p)[::-1]` has them on a CPU with AVX-512.

    p: (N, K), K ≤ 8. There numpy.argsort is a bitonic network, whose order of equal numbers is neither first come nor
    last come; 14 % of the rows have equal logits, which are float16. Here on any CPU: in each step lane l meets lane
    partner[l], and the lanes whose bit is set take the larger of two numbers that differ.
    """
    lanes = np.full((len(p), 8), np.inf)
    lanes[:, : p.shape[1]] = p
    order = np.tile(np.arange(8), (len(p), 1))
    steps = (("10325476", 0xAA), ("32107654", 0xCC), ("10325476", 0xAA))
    steps += (("76543210", 0xF0), ("23016745", 0xCC), ("10325476", 0xAA))
    for digits, bits in steps:
        partner = np.array([int(digit) for digit in digits])
        larger = bits >> np.arange(8) & 1 == 1
        after = np.where(larger, np.maximum(lanes, lanes[:, partner]), np.minimum(lanes, lanes[:, partner]))
        order = np.where(after == lanes, order, order[:, partner])
        lanes = after
    return order[:, : p.shape[1]][:, ::-1]


def published_row(logits: np.ndarray, answers: np.ndarray, further: int = 0, as_source: bool = False) -> dict:
    """Accuracy (%), mean set size and UAcc (%) of one model, over LAC's and APS's sets at 90 %.

    logits: (N, 6). further: ranks past the ⌈(n + 1)·0.9⌉-th smallest nonconformity. as_source: equally likely options
    in the order of `avx512_order`; by default the earlier letter counts first in APS.
    """
    labelled, rest = train_test_split(np.arange(len(answers)), train_size=0.5, random_state=42)
    p, count = softmax(logits, axis=1), len(labelled)
    accuracy = float((p[rest].argmax(1) == answers[rest]).mean())
    level = (np.ceil((count + 1) * LEVEL) + further) / (count + 1)
    if as_source:  # the functions below keep the order of equal options
        order = avx512_order(p)
        p, answers = np.take_along_axis(p, order, 1), (order == answers[:, None]).argmax(1)
    sizes = []
    for method in METHODS:
        values = nonconformity(p[labelled], method)[np.arange(count), answers[labelled]]
        sets = option_sets(p[rest], set_quantile(values, level), method)
        sizes.append(np.maximum(sets.sum(1), 1).mean())  # an empty set counts its likeliest option
    uacc = np.mean([accuracy * np.sqrt(len(LETTERS)) / size for size in sizes])
    return {"accuracy": 100 * accuracy, "set_size": float(np.mean(sizes)), "uacc": 100 * float(uacc)}


def published(benchmarks: list[Benchmark]) -> dict:
    """The 60 cells, how many agree with the printed ones to the last digit, and what the product's conventions change.

    The source's differ in two: numpy.quantile(scores, ⌈(n + 1)·0.9⌉ / n, method="higher") is one rank higher, for it
    counts from 0, and equally likely options stand in the order of `avx512_order`.
    """
    conventions = {"rank": {"as_source": True}, "order_of_equal_options": {"further": 1}, "both": {}}
    models, wrong = [], []
    changes: dict[str, dict[str, float]] = {name: {"set_size": 0.0, "uacc": 0.0} for name in conventions}
    for model, printed in PUBLISHED.items():
        entry: dict = {"model": model}
        for benchmark, cells in zip(benchmarks, printed):
            logits, answers = benchmark.logits[benchmark.members.index(model)], benchmark.answers
            row = published_row(logits, answers, further=1, as_source=True)
            entry[benchmark.name] = row
            for (name, value), cell in zip(row.items(), cells):
                if round(value, 2) != cell:
                    wrong.append(f"{model}, {NAMES[benchmark.name]}, {name}: {value:.4f}, published {cell:.2f}")
            for convention, choice in conventions.items():
                other, largest = published_row(logits, answers, **choice), changes[convention]
                largest |= {name: max(value, abs(other[name] - row[name])) for name, value in largest.items()}
        models.append(entry)
    equal = {one.name: float((np.diff(np.sort(one.logits, 2), axis=2) == 0).any(2).mean()) for one in benchmarks}
    return {
        "models": models,
        "cells": 6 * len(PUBLISHED),
        "agree": 6 * len(PUBLISHED) - len(wrong),
        "wrong": wrong,
        "largest_change_by_product_convention": changes,
        "share_of_rows_with_equal_logits": equal,
    }


# ------------------------------------------------------------------ calibration, sets, thresholds
def measure_half(benchmark: Benchmark, member: int, labelled: np.ndarray, rest: np.ndarray, seed: int) -> dict:
    """One model, calibrated on `labelled` and measured on `rest`."""
    logits, answers = benchmark.logits[member], benchmark.answers
    clusters, others = benchmark.clusters(labelled), benchmark.clusters(rest)
    y = answers[rest]
    calibration = calibrate(LabelledRows(logits[labelled], answers[labelled], None, clusters), temperature_only=True)
    raw, log_p = log_probabilities(logits[rest]), calibration.apply(logits[rest])
    right = (log_p.argmax(1) == y).astype(float)
    result: dict = {"temperature": calibration.temperature, "accuracy": right.mean()}
    for name, values in (("before", raw), ("after", log_p)):
        confidence = np.exp(values.max(1))
        floor = noise_floor(confidence, np.random.default_rng(seed), FLOOR_DRAWS, right, others)
        result |= {
            f"nll_{name}": row_losses(values, y).mean(),
            f"ece_{name}": ece(confidence, right),
            f"floor_{name}": floor["floor_mean"],
            f"floor_95_{name}": floor["floor_95"],
        }
    for level in LEVELS:
        held = conformal_sets(log_p, [calibration], SetRequest(level)).held
        result[f"covered_{level}"] = held[np.arange(len(y)), y].mean()
        result[f"size_{level}"] = held.sum(1).mean()
    labelled_log_p = calibration.apply(logits[labelled])
    labelled_right = (labelled_log_p.argmax(1) == answers[labelled]).astype(float)
    confidence = np.exp(labelled_log_p.max(1))
    threshold = threshold_for(confidence, labelled_right, WANTED, clusters=clusters)["threshold"]
    answered = np.exp(log_p.max(1)) >= (2.0 if threshold is None else threshold)
    if answered.any():
        answered_clusters = None if others is None else others[answered]
        result |= {
            "answered": answered.mean(),
            "accuracy_answered": right[answered].mean(),
            "broken": share_of(right[answered], answered_clusters)["high"] < WANTED,
        }
    return result


def measure_rule(benchmark: Benchmark, member: int, labelled: np.ndarray, rest: np.ndarray) -> dict:
    """What `calibrate` fits besides a temperature, and what that saves on `rest`.

    Temperatures by task type, where task types are known; a letter bias on the four letters that can be right, for with
    all six the product looks at none, since no answer is e or f.
    """
    logits, y, types = benchmark.logits[member], benchmark.answers, benchmark.task_types
    clusters, four = benchmark.clusters(labelled), logits[:, :4]
    plain = calibrate(LabelledRows(four[labelled], y[labelled], None, clusters), temperature_only=True)
    biased = calibrate(LabelledRows(four[labelled], y[labelled], None, clusters))
    result = {
        "letters": bool(biased.letters),
        "nll_four": row_losses(plain.apply(four[rest]), y[rest]).mean(),
        "nll_letters": row_losses(biased.apply(four[rest]), y[rest]).mean(),
    }
    if types.any():
        richer = calibrate(LabelledRows(logits[labelled], y[labelled], types[labelled].tolist(), clusters))
        result |= {
            "groups": bool(richer.groups),
            "nll_groups": row_losses(richer.apply(logits[rest], types[rest].tolist()), y[rest]).mean(),
        }
    return result


def worst_by_rows(benchmark: Benchmark, halvings: int) -> float:
    """The most NLL that a temperature costs on the other half, where halves are drawn row by row: copies of a question
    stand in both, as in a table whose rows are drawn at random."""
    y, worst = benchmark.answers, -np.inf
    for seed in range(halvings):
        labelled, rest = replace(benchmark, questions=None).draw(np.random.default_rng(seed), len(y) // 2)
        for logits in benchmark.logits:
            calibration = calibrate(LabelledRows(logits[labelled], y[labelled]), temperature_only=True)
            before, after = log_probabilities(logits[rest]), calibration.apply(logits[rest])
            worst = max(worst, float((row_losses(after, y[rest]) - row_losses(before, y[rest])).mean()))
    return worst


def halving(benchmark: Benchmark, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that calibrate, and rows that are measured."""
    return benchmark.draw(np.random.default_rng(seed), len(benchmark.answers) // 2)


def worth(benchmark: Benchmark, halvings: int, of_rules: int) -> dict:
    """Temperature, sets and thresholds of every model over so many halvings, seeds 0, 1, …; `calibrate`'s rule over
    `of_rules` of them."""
    cases, ruled = [], []
    for seed in tqdm(range(halvings), f"{NAMES[benchmark.name]}, calibration"):
        rows = halving(benchmark, seed)
        for member in range(len(benchmark.members)):
            cases.append({"member": member, "seed": seed} | measure_half(benchmark, member, *rows, seed))
            if seed < of_rules:
                ruled.append({"nll_after": cases[-1]["nll_after"]} | measure_rule(benchmark, member, *rows))
    table, rules = pd.DataFrame(cases), pd.DataFrame(ruled)
    by_model = table.drop(columns="seed").groupby("member").mean(numeric_only=True)
    harm = table["nll_after"] - table["nll_before"]
    worst = table.loc[harm.idxmax()]
    given = table["answered"].notna() if "answered" in table else pd.Series(False, table.index)
    result = {
        "rows": len(benchmark.answers),
        "questions": len(benchmark.answers) if benchmark.questions is None else int(benchmark.questions.max()) + 1,
        "halvings": halvings,
        "calibration": {
            **{
                name: table[name].mean()
                for name in ("nll_before", "nll_after", "ece_before", "ece_after", "floor_before", "floor_after")
            },
            "temperature_lowest": table["temperature"].min(),
            "temperature_highest": table["temperature"].max(),
            "nll_before_worst_model": by_model["nll_before"].max(),
            "nll_after_worst_model": by_model["nll_after"].max(),
            "cases": len(table),
            "cases_with_higher_nll": int((harm > 0).sum()),
            "highest_cost": float(harm.max()),
            "highest_cost_by_rows": worst_by_rows(benchmark, halvings),
            "worst_case": {
                "member": benchmark.members[int(worst["member"])],
                "seed": int(worst["seed"]),
                "nll_before": worst["nll_before"],
                "nll_after": worst["nll_after"],
            },
            "within_floor_before": (table["ece_before"] <= table["floor_95_before"]).mean(),
            "within_floor_after": (table["ece_after"] <= table["floor_95_after"]).mean(),
        },
        "sets": [
            {
                "level": level,
                "covered": by_model[f"covered_{level}"].mean(),
                "covered_lowest": by_model[f"covered_{level}"].min(),
                "covered_highest": by_model[f"covered_{level}"].max(),
                "within_.02": (abs(by_model[f"covered_{level}"] - level) <= 0.02).mean(),
                "size": by_model[f"size_{level}"].mean(),
                "size_smallest": by_model[f"size_{level}"].min(),
                "size_largest": by_model[f"size_{level}"].max(),
            }
            for level in LEVELS
        ],
        "thresholds": {
            "wanted": WANTED,
            "cases": len(table),
            "given": int(given.sum()),
            "observed_at_least_wanted": int((table["accuracy_answered"][given] >= WANTED).sum()) if given.any() else 0,
            "significantly_below": int(table["broken"][given].astype(bool).sum()) if given.any() else 0,
            "lowest_observed": table["accuracy_answered"][given].min() if given.any() else None,
            "answered": table["answered"][given].mean() if given.any() else None,
        },
        "rule": {
            "halvings": of_rules,
            "nll_temperature": rules["nll_after"].mean(),
            "nll_temperature_four_letters": rules["nll_four"].mean(),
            "letter_bias": _rule(rules["letters"], rules["nll_four"], rules["nll_letters"]),
        },
        "models": [
            {"member": benchmark.members[member]}
            | {name: row[name] for name in ("accuracy", "temperature", "nll_before", "nll_after")}
            | {name: row[name] for name in ("ece_before", "ece_after", "covered_0.9", "size_0.9")}
            for member, row in by_model.iterrows()
        ],
    }
    if "groups" in rules:
        result["rule"]["task_types"] = _rule(rules["groups"], rules["nll_after"], rules["nll_groups"])
    return result


def _rule(taken: pd.Series, before: pd.Series, after: pd.Series) -> dict:
    """How often a further fit was taken, and the NLL that it saved on rows that it was not fitted on."""
    saved = (before - after)[taken]
    return {
        "taken": taken.mean(),
        "nll_saved_where_taken": saved.mean(),
        "least": saved.min(),
        "most": saved.max(),
        "higher_nll_where_taken": (saved < 0).mean(),
    }


# ------------------------------------------------------------------ pools
def pooled_ways(
    raw: np.ndarray, calibrated: np.ndarray, fit: np.ndarray, y: np.ndarray, clusters: np.ndarray | None
) -> dict[str, np.ndarray]:
    """(n, K) log-probabilities by each of the five ways. raw, calibrated: (M, n, K) of the rows to be pooled.

    fit: (M, N, K) calibrated labelled rows, y their answers, clusters their questions, for the pool's temperature.
    """
    temperature = fit_temperature(pool(fit), y, clusters).temperature
    ways = (
        pool(raw, "linear"),
        pool(raw),
        pool(calibrated, "linear"),
        pool(calibrated),
        pool(calibrated, temperature=temperature),
    )
    return dict(zip(WAYS, ways))


def members_by_nll(
    benchmark: Benchmark, labelled: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Members with their temperatures, the lowest NLL of the labelled rows first: their numbers (M,), and (M, N, K)
    log-probabilities of the labelled rows and of the rest."""
    y, clusters = benchmark.answers[labelled], benchmark.clusters(labelled)
    fits = [
        calibrate(LabelledRows(logits[labelled], y, None, clusters), temperature_only=True)
        for logits in benchmark.logits
    ]
    order = np.argsort([fit.nll_after for fit in fits], kind="stable")
    log_p = [np.stack([fits[m].apply(benchmark.logits[m][rows]) for m in order]) for rows in (labelled, rest)]
    return order, *log_p


def measured(log_q: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Accuracy and NLL of (N, K) log-probabilities."""
    return {"accuracy": (log_q.argmax(1) == answers).mean(), "nll": row_losses(log_q, answers).mean()}


def against(first: np.ndarray, log_q: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None) -> dict:
    """A pool's accuracy and NLL, each minus those of `first`, with 95 % intervals over questions."""
    differences = compare(np.exp(first), np.exp(log_q), answers, clusters)
    entry = measured(log_q, answers)
    for name in ("accuracy", "nll"):
        values = differences[name]["difference"]
        entry[f"{name}_difference"] = values["value"]
        entry |= {f"{name}_{end}": values[end] for end in ("low", "high")}
    return entry | {"better": entry["nll_high"] < 0, "worse": entry["nll_low"] > 0}


def pools(benchmark: Benchmark, halvings: int, of_fitted: int) -> dict:
    """The best 2, 5, 10 and 20 members pooled in every way, against the best one with its temperature.

    The best are those with the lowest NLL on the labelled half. Differences are on the other half: means over halvings,
    of the ends of intervals too. better, worse: the share of halvings in which the whole interval of the NLL's
    difference lies below, or above, 0. fitted: over fewer halvings, for it takes longer, fitted weights against equal
    ones in the last of the five ways, and equal ones on the same halvings against the best member.
    """
    entries: list[dict] = []
    fitted: list[dict] = []
    for seed in tqdm(range(halvings), f"{NAMES[benchmark.name]}, pools"):
        labelled, rest = halving(benchmark, seed)
        order, fit, calibrated = members_by_nll(benchmark, labelled, rest)
        y, clusters = benchmark.answers[labelled], benchmark.clusters(labelled)
        raw = log_probabilities(benchmark.logits[order][:, rest])
        best, answers, others = calibrated[0], benchmark.answers[rest], benchmark.clusters(rest)
        entries.append({"members": 1, "way": BEST} | against(best, best, answers, others))
        for size in SIZES:
            ways = pooled_ways(raw[:size], calibrated[:size], fit[:size], y, clusters)
            for way, log_q in ways.items():
                entries.append({"members": size, "way": way} | against(best, log_q, answers, others))
            if seed < of_fitted:
                fitted.append(entries[-1] | {"way": EQUAL, "taken": True})
                for way, kind in FITTED.items():
                    weights = fit_weights(fit[:size], y, kind, clusters)
                    log_q = apply_weights(weights, calibrated[:size])
                    entry = {"members": size, "way": way, "taken": weights.fit is not None}
                    fitted.append(entry | against(ways[WAYS[-1]], log_q, answers, others))
    return {"pools": averaged(entries, "halvings"), "fitted": averaged(fitted, "halvings")}


def averaged(entries: list[dict], what: str) -> list[dict]:
    """Means of all numbers by members, way and labelled rows, in the order of the entries; `what` counts them."""
    keys = [name for name in ("labelled", "members", "way") if name in entries[0]]
    groups = pd.DataFrame(entries).groupby(keys, sort=False)
    numbers = [name for name in entries[0] if name not in keys]
    return [dict(zip(keys, key)) | {what: len(group)} | group[numbers].mean().to_dict() for key, group in groups]


def labelled_counts(benchmark: Benchmark, seeds: int, by_question: bool) -> list[dict]:
    """Equal against fitted weights with few and many labelled rows: means over seeds, at most those of LABELLED.

    by_question: whole questions are drawn, and cross-validation keeps them together; else rows, which leaves copies of
    labelled questions among the others.
    """
    entries = []
    view = benchmark if by_question else replace(benchmark, questions=None)
    cases = [(count, seed) for count, most in LABELLED.items() for seed in range(min(seeds, most))]
    for count, seed in tqdm(cases, f"{NAMES[benchmark.name]}, labelled {'questions' if by_question else 'rows'}"):
        labelled, rest = view.draw(np.random.default_rng(seed), count)
        _, fit, calibrated = members_by_nll(view, labelled, rest)
        y, clusters, answers = view.answers[labelled], view.clusters(labelled), view.answers[rest]
        alone = {"labelled": count, "members": 1, "way": BEST, "taken": True}
        entries.append(alone | measured(calibrated[0], answers))
        for size in MEMBERS:
            ways = {EQUAL: equal_weights(fit[:size], y)}
            ways |= {name: fit_weights(fit[:size], y, kind, clusters) for name, kind in FITTED.items()}
            ways[ALWAYS] = convex_weights(fit[:size], y, PULL)
            for way, weights in ways.items():
                entry = {"labelled": count, "members": size, "way": way}
                entry["taken"] = way not in FITTED or weights.fit is not None
                entries.append(entry | measured(apply_weights(weights, calibrated[:size]), answers))
    return averaged(entries, "seeds")


# ------------------------------------------------------------------ tables
def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, as the document has it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables(report: dict) -> dict[str, str]:
    """The tables of docs/real-models.md, by what they show, from the report."""
    worth_by_name = {NAMES[name]: report["worth"][name] for name in NAMES}
    result = {
        "Published table": markdown(
            ["model", *(f"{what} {short}" for what in ("accuracy", "set size", "UAcc") for short in ("MMB", "OOD"))],
            [
                [row["model"], *(f"{row[s][k]:.2f}" for k in ("accuracy", "set_size", "uacc") for s in NAMES)]
                for row in report["published"]["models"]
            ],
        )
    }
    columns = {
        "NLL, T = 1": lambda c: f"{c['nll_before']:.3f}",
        "NLL, fitted T": lambda c: f"{c['nll_after']:.3f}",
        "worst model, T = 1": lambda c: f"{c['nll_before_worst_model']:.3f}",
        "worst model, fitted T": lambda c: f"{c['nll_after_worst_model']:.3f}",
        "ECE, T = 1": lambda c: f"{c['ece_before']:.3f}",
        "ECE, fitted T": lambda c: f"{c['ece_after']:.3f}",
        "noise floor": lambda c: f"{c['floor_after']:.3f}",
    }
    result["Temperature"] = markdown(
        ["benchmark", *columns],
        [
            [name, *(show(figures["calibration"]) for show in columns.values())]
            for name, figures in worth_by_name.items()
        ],
    )
    result["Sets"] = markdown(
        ["benchmark", "asked", "covered", "lowest model", "highest model", "mean size", "smallest", "largest"],
        [
            [name, f"{row['level']:.2f}"]
            + [f"{row[k]:.3f}" for k in ("covered", "covered_lowest", "covered_highest")]
            + [f"{row[k]:.2f}" for k in ("size", "size_smallest", "size_largest")]
            for name, figures in worth_by_name.items()
            for row in figures["sets"]
        ],
    )
    result["Thresholds"] = markdown(
        ["benchmark", "cases", "threshold given", "right often enough", "significantly too rarely", "answered"],
        [
            [name, *(f"{figures['thresholds'][key]}" for key in ("cases", "given", "observed_at_least_wanted"))]
            + [f"{figures['thresholds']['significantly_below']}", f"{figures['thresholds']['answered']:.3f}"]
            for name, figures in worth_by_name.items()
        ],
    )
    result["More than a temperature"] = markdown(
        ["benchmark", "what", "taken", "NLL saved where taken", "least", "most"],
        [
            [name, title, f"{rule['taken']:.2f}"]
            + [f"{rule[key]:.4f}" for key in ("nll_saved_where_taken", "least", "most")]
            for name, figures in worth_by_name.items()
            for key, title in (("task_types", "temperature by task type"), ("letter_bias", "letter bias, a to d alone"))
            if (rule := figures["rule"].get(key))
        ],
    )
    result["Letters that are never right"] = markdown(
        ["benchmark", "NLL, six letters", "NLL, a to d alone"],
        [
            [name, *(f"{figures['rule'][key]:.3f}" for key in ("nll_temperature", "nll_temperature_four_letters"))]
            for name, figures in worth_by_name.items()
        ],
    )
    for name in NAMES:
        entries = {(row["members"], row["way"]): row for row in report["pools"][name]["pools"]}
        header = [f"{size} members" for size in SIZES]
        rows = [[BEST, *[_pair(entries[1, BEST])] * len(SIZES)]]
        rows += [[way, *(_pair(entries[size, way]) for size in SIZES)] for way in WAYS]
        rows.append([f"NLL: {WAYS[-1]} − {BEST}", *(_difference(entries[size, WAYS[-1]]) for size in SIZES)])
        result[f"Pools on {NAMES[name]}"] = markdown(["accuracy, NLL", *header], rows)
        entries = {(row["members"], row["way"]): row for row in report["pools"][name]["fitted"]}
        rows = [[way, *(_pair(entries[size, way]) for size in SIZES)] for way in (EQUAL, *FITTED)]
        rows += [[f"NLL: {way} − {EQUAL}", *(_difference(entries[size, way]) for size in SIZES)] for way in FITTED]
        result[f"Fitted weights on {NAMES[name]}"] = markdown(["accuracy, NLL", *header], rows)
    for what in ("questions", "rows"):
        entries = {(row["labelled"], row["members"], row["way"]): row for row in report["labelled"][what]}
        ways = [(1, BEST)] + [(size, way) for way in (EQUAL, *FITTED, ALWAYS) for size in MEMBERS]
        rows = [
            [way if size == 1 else f"{way}, {size} members", *(_pair(entries[n, size, way]) for n in LABELLED)]
            for size, way in ways
        ]
        result[f"Labelled {what}"] = markdown(["accuracy, NLL", *(f"{count:,} rows" for count in LABELLED)], rows)
    return result


def _pair(entry: dict) -> str:
    return f"{entry['accuracy']:.3f}, {entry['nll']:.3f}"


def _difference(entry: dict) -> str:
    return f"{entry['nll_difference']:+.3f} ({entry['nll_low']:+.3f} to {entry['nll_high']:+.3f})"


def rounded(value: object) -> object:
    """A nested report with its numbers rounded to six decimals, NumPy's as Python's; those not finite become None."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the two Parquet files.",
)
@click.option(
    "--halvings", default=20, show_default=True, help="Halvings of each benchmark, for calibration and plain pools."
)
@click.option("--fitted", default=5, show_default=True, help="How many of these for pools with fitted weights.")
@click.option("--rules", default=5, show_default=True, help="How many of these for letter bias and task types.")
@click.option(
    "--seeds", default=6, show_default=True, help="Draws for each number of labelled rows; 3 at most of the largest."
)
@click.option("--table-only", is_flag=True, help="Recompute the published table alone.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(data: Path, halvings: int, fitted: int, rules: int, seeds: int, table_only: bool, out: Path | None) -> None:
    """Recompute the published table, measure what the product is worth, and print both as tables."""
    start = time.monotonic()
    benchmarks = [read_benchmark(data / f"{name}.parquet") for name in NAMES]
    report = {
        "command": "python -m benchmarks.real_logits --data FOLDER --out FILE",
        "options": {"halvings": halvings, "fitted": fitted, "rules": rules, "seeds": seeds},
        "versions": scoring.versions() | {name: metadata.version(name) for name in ("scipy", "scikit-learn", "pandas")},
        "published": published(benchmarks),
    }
    for text in report["published"]["wrong"]:
        click.echo(text, err=True)
    agree, cells = report["published"]["agree"], report["published"]["cells"]
    click.echo(f"published table: {agree} of {cells} cells agree to the last digit")
    if not table_only:
        report["worth"] = {one.name: worth(one, halvings, rules) for one in benchmarks}
        report["pools"] = {one.name: pools(one, halvings, fitted) for one in benchmarks}
        with_copies = benchmarks[0]  # MMBench
        report["labelled"] = {
            what: labelled_counts(with_copies, seeds, what == "questions") for what in ("questions", "rows")
        }
        report |= {"seconds": round(time.monotonic() - start), "processor_seconds": round(time.process_time())}
        for title, text in tables(report).items():
            click.echo(f"\n{title}\n{text}")
    if out:
        write_json(out, rounded(report))
    sys.exit(int(agree < cells))


if __name__ == "__main__":
    main()
