"""Null models at the edge: is the optimum found, certified, and quickly?

Random problems over the cases in which other programs stop early or crawl. Each fit is held against the best of ten
L-BFGS searches on triangular factors from random starts (scipy), with the same likelihood.

    python benchmarks/hard_null_models.py --problems 300
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from scipy.optimize import minimize

from kron2sum_cli.errors import Kron2SumError
from kron2sum_cli.model.contrasts import Contrasts, rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.likelihood import evaluate
from kron2sum_cli.model.spectrum import Array, spectrum_of_features
from kron2sum_cli.model.trait_axes import axes_of_factors

Rng = np.random.Generator


@dataclass(frozen=True)
class Problem:
    """One data set and what is hard about it."""

    case: str
    Y: Array
    X: Array
    G: Array


def simulate(rng: Rng, n: int, C0: Array, C1: Array, eigenvalues: Array) -> tuple[Array, Array]:
    """Y (n, p) and G (n, n) with these eigenvalues of GGᵀ."""
    U = np.linalg.qr(rng.normal(size=(n, n)))[0]
    root0, root1 = _root(C0), _root(C1)
    p = C0.shape[0]
    genetic = U @ (np.sqrt(eigenvalues)[:, None] * rng.normal(size=(n, p))) @ root0.T
    return genetic + rng.normal(size=(n, p)) @ root1.T, U * np.sqrt(eigenvalues)


def _root(C: Array) -> Array:
    size = np.sqrt(np.where(np.diag(C) > 0, np.diag(C), 1))  # scaled, or small traits would be lost in rounding
    values, vectors = np.linalg.eigh(C / np.outer(size, size))
    return size[:, None] * vectors * np.sqrt(np.maximum(values, 0))


def random_covariance(rng: Rng, p: int, rank: int | None = None) -> Array:
    """A covariance with diagonal near 1, of this rank."""
    L = rng.normal(size=(p, rank or p + 1))
    return L @ L.T / L.shape[1]


def usual_eigenvalues(rng: Rng, n: int) -> Array:
    """Like those of a relationship matrix with families, mean 1."""
    s = rng.gamma(0.6, size=n) + 1e-3
    return s / s.mean()


def make(case: str, rng: Rng, p: int) -> Problem:
    """A random problem of one case."""
    n = int(rng.integers(60, 200))
    C0, C1, s = random_covariance(rng, p), random_covariance(rng, p), usual_eigenvalues(rng, n)
    if case == "trait all genetic":
        C1[0], C1[:, 0] = 0, 0
    elif case == "combination all genetic":
        C1 = random_covariance(rng, p, max(p - 1, 1)) if p > 1 else 1e-9 * C1
    elif case == "trait without genetics":
        C0[0], C0[:, 0] = 0, 0
    elif case == "C0 of low rank":
        C0 = random_covariance(rng, p, max(p // 2, 1))
    elif case == "no genetics":
        C0 = 0 * C0
    elif case == "traits almost collinear":
        mix = np.ones((p, p)) + 1e-4 * rng.normal(size=(p, p))
        C0, C1 = mix @ C0 @ mix.T, mix @ C1 @ mix.T
    elif case == "p near n/10":
        n = 10 * p + 5
        s = usual_eigenvalues(rng, n)
    elif case == "scales of 1e6":
        scale = 10.0 ** rng.uniform(-6, 6, size=p)
        C0, C1 = C0 * np.outer(scale, scale), C1 * np.outer(scale, scale)
    elif case == "eigenvalues over 12 orders":
        s = 10.0 ** rng.uniform(-12, 0, size=n)
        s = s / s.mean()
        C1 = C1 * rng.choice([1.0, 1e-3, 1e-8, 1e-13])
    elif case == "equal eigenvalues":
        s = np.ones(n)
    elif case == "low rank GRM":
        s = np.where(np.arange(n) < n // 4, s, 0.0)
    Y, G = simulate(rng, n, C0, C1, s)
    if case == "low rank GRM":
        G = G[:, : n // 4]
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, 2))])
    return Problem(case, Y, X, G)


CASES = (
    "trait all genetic",
    "combination all genetic",
    "trait without genetics",
    "C0 of low rank",
    "no genetics",
    "traits almost collinear",
    "p near n/10",
    "scales of 1e6",
    "eigenvalues over 12 orders",
    "equal eigenvalues",
    "low rank GRM",
)


def best_of_lbfgs(data: Contrasts, rank: int, reml: bool, rng: Rng, starts: int = 10) -> float:
    """The highest log-likelihood of L-BFGS on factors from random starts."""
    p, tau = data.ntraits, data.mean_eigenvalue
    scale = np.sqrt(np.diag(data.Z.T @ data.Z) / data.nrows)
    tril = np.tril_indices(p)

    def unpack(x: Array) -> tuple[Array, Array]:
        L1 = np.zeros((p, p))
        L1[tril] = x[p * rank :]
        return scale[:, None] * x[: p * rank].reshape(p, rank) / np.sqrt(tau), scale[:, None] * L1

    def objective(x: Array) -> tuple[float, Array]:
        L0, L1 = unpack(x)
        try:
            point = evaluate(data, axes_of_factors(L0, L1, tau), reml)
        except (Kron2SumError, np.linalg.LinAlgError):
            return 1e10, np.zeros_like(x)
        T = point.axes.T
        g0 = 2 * T.T @ point.score0 @ T @ L0 * scale[:, None] / np.sqrt(tau)
        g1 = 2 * T.T @ point.score1 @ T @ L1 * scale[:, None]
        return -point.lml, -np.concatenate([g0.ravel(), g1[tril]])

    best = -np.inf
    for _ in range(starts):
        x0 = rng.normal(size=p * rank + tril[0].size) * 0.5
        x0[p * rank :][tril[0] == tril[1]] = rng.uniform(0.3, 1, size=p)
        result = minimize(
            objective,
            x0,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 3000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-8},
        )
        best = max(best, -float(result.fun))
    return best


def run(problems: int, seed: int, report: Callable[[str], None] = print) -> dict[str, float]:
    """Fit all problems; the worst deficit, the share certified, and the steps."""
    rng = np.random.default_rng(seed)
    deficits, steps, certified, seconds = [], [], 0, 0.0
    for i in range(problems):
        case, p, reml = CASES[i % len(CASES)], 1 + (i // len(CASES)) % 8, bool(i % 2)
        problem = make(case, rng, p)
        data = rotate_traits(spectrum_of_features(problem.G, problem.X), problem.Y)
        rank = p if rng.random() < 0.7 else int(rng.integers(1, p + 1))
        start = perf_counter()
        try:
            result = fit(data, rank, reml)
            lml, certificate = result.point.lml, result.certificate
            certified += certificate.certified
            steps.append(certificate.steps)
        except Kron2SumError as error:
            lml, certificate = -np.inf, error
        took = perf_counter() - start
        seconds += took
        deficit = best_of_lbfgs(data, rank, reml, rng) - lml
        deficits.append(deficit)
        if deficit > 1e-4 or not getattr(certificate, "certified", False):
            report(
                f"{i} {case}: p={p} rank={rank} {'REML' if reml else 'ML'} n={len(problem.Y)}"
                f" deficit {deficit:.3g} {certificate}"
            )
    summary = {
        "problems": problems,
        "worst deficit": float(np.max(deficits)),
        "deficits above 1e-4": int(np.sum(np.array(deficits) > 1e-4)),
        "L-BFGS worse by 1e-4": int(np.sum(np.array(deficits) < -1e-4)),
        "share certified": certified / problems,
        "median steps": float(np.median(steps)),
        "worst steps": int(np.max(steps)),
        "seconds": seconds,
    }
    report("\n".join(f"{key}: {value}" for key, value in summary.items()))
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run(options.problems, options.seed)
