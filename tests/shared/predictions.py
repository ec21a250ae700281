"""Made-up log-probabilities of members, and what fits them by plain means."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax


def members(m=3, n=500, seed=0, noise=1.0, sharp=3.0):
    """Over-confident members that err apart: (M, N, K) logits and (N,) answers."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 4))
    y = (np.exp(log_softmax(z, axis=1)).cumsum(1) > rng.random((n, 1))).argmax(1)
    return np.stack([log_softmax(sharp * (z + rng.normal(0, noise, z.shape)), axis=1) for _ in range(m)]), y


def likeliest_temperature(z, y):
    """By a bounded search over log T."""
    optimum = minimize_scalar(lambda log_t: losses_of(z, y, np.exp(log_t)).mean(), bounds=(-3, 3), method="bounded")
    return float(np.exp(optimum.x))


def losses_of(z, y, temperature=1.0):
    return -log_softmax(z / temperature, axis=1)[np.arange(len(y)), y]


def draw_rows(n, seed, first=0):
    """(3, n, 4) log-probabilities of unlike members that are too sure, (n,) answers, and ids."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.2, (n, 4))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    sizes = ((0.5, 3.0), (1.0, 2.0), (2.0, 1.5))
    log_p = [log_softmax(sharp * (z + rng.normal(0, noise, z.shape)), axis=1) for noise, sharp in sizes]
    return np.stack(log_p), y, [f"r{row}" for row in range(first, first + n)]


def good_and_poor(n, seed=0):
    """Four members: one good, one good in other ways, two poor ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    noise = [0.7, 0.9, 3.0, 3.0]
    return np.stack([log_softmax(z + rng.normal(0, size, z.shape), axis=1) for size in noise]), y
