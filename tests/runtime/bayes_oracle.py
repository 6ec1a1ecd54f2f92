"""The Bayesian head of docs/bayes.md done anew in float64, and heads to compare with it.

Tolerances are derived: `Posterior.slack` bounds what the rounding of the sums and an elimination of backward
error 8 n u (Higham 2002, theorem 14.5, symmetric positive definite) do to mean and variance, with the square
root of n in the place of n, as rounding errors are independent (Higham and Mary 2019, factor lambda = 4).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtune.targets.machine import Machine

from .bayes_probe import TOASTER, Head, Snapshot

Array = NDArray[np.float64]
UNIT = 2.0**-24


def network(seed: int, hidden: int, inputs: int) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0.0, 0.6, shape).astype(np.float32) for shape in ((hidden, inputs), hidden, hidden))


def head(machine: Machine, seed: int = 0, **changes: float) -> Head:
    chosen = {**TOASTER, **changes}
    return Head(machine, chosen, *network(seed, int(chosen["hidden"]), int(chosen["inputs"])))


def contexts(rng: np.random.Generator, count: int, inputs: int = 5) -> Array:
    """Meals of a toaster: a few kinds, each give or take a little."""
    kinds = rng.choice((-1.0, 1.0), (count, inputs))
    return (kinds + rng.normal(0.0, 0.1, (count, inputs))).astype(np.float32).astype(float)


def prior(s: dict[str, float]) -> Array:
    """p, (features,)."""
    bumps, hidden, inputs = (int(s[name]) for name in ("bumps", "hidden", "inputs"))
    return np.array(
        [s["input_variance"]] * inputs
        + [s["bias_variance"], s["trend_variance"]]
        + [s["bump_variance"]] * bumps
        + [s["hidden_variance"]] * hidden
    )


def phi(device: Head, known: Snapshot, context: Array, age: float) -> tuple[Array, float]:
    s = known.settings
    hidden, base = device.features(context)
    bumps = np.zeros(int(s["bumps"]))
    for slot, centre in enumerate(known.centres):
        bumps[slot] = math.exp(-float(((context - centre) ** 2).sum()) / (2.0 * s["bump_width_squared"]))
    return np.concatenate([context, [1.0, -age / s["trend_unit"]], bumps, hidden]), base


@dataclass(frozen=True)
class Posterior:
    mean: Array
    covariance: Array
    slack: float  # bound on the error in d, in the norm that diag(A) gives
    relative: float  # bound on the relative error of phi' P phi
    scale: Array  # sqrt(diag A)


def posterior(features: Array, residuals: Array, weights: Array, precision: Array) -> Posterior:
    """features (n, features), weights already divided by the noise."""
    size, count = len(precision), len(weights)
    matrix = np.diag(precision) + (features.T * weights) @ features
    covariance = np.linalg.inv(matrix)
    mean = covariance @ (features.T @ (weights * residuals))
    scale = np.sqrt(np.diag(matrix))
    inverse_norm = np.linalg.norm(np.linalg.inv(matrix / np.outer(scale, scale)), 2)
    # sums of `count` products, weights rounded thrice, bumps two units off, and the elimination itself
    gamma = (8 + 4 * math.sqrt(count) + 8 * math.sqrt(size)) * UNIT
    spread = 2.0 * math.sqrt(size)  # spectral norm of a matrix of independent errors of size 1
    right = math.sqrt(size) * math.sqrt(float(weights @ residuals**2))
    slack = inverse_norm * gamma * (spread * float(np.linalg.norm(scale * mean)) + right)
    return Posterior(mean, covariance, slack, inverse_norm * gamma * spread, scale)


def of_buffer(device: Head, known: Snapshot) -> tuple[Array, Array, Array, Array]:
    """Features, residuals, weights over noise, base's residuals' scale, of all samples."""
    rows = [phi(device, known, x, age) for x, age in zip(known.contexts, known.ages, strict=True)]
    features = np.array([row for row, _ in rows])
    base = np.array([value for _, value in rows])
    weights = np.maximum(known.change_weights, 0.0) * known.robust_weights / known.state["noise"]
    return features, known.targets - base, weights, base


def log_density(s: dict[str, float], error: float, variance: float) -> float:
    usual = math.exp(-0.5 * error**2 / variance) / math.sqrt(2.0 * math.pi * variance)
    return math.log((1.0 - s["wild_share"]) * usual + s["wild_share"] * s["wild_density"])
