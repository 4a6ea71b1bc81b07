"""Refits against brute force: the likelihood ratio of every refit, and the same by many searches of its own.

Small data sets of every kind: 50 to 120 samples in families, 2 to 6 traits, C0 of full or bounded rank, one to three
covariates, variants with and without effects. The likelihood of the contrasts of the covariates is written down row by
row, and maximised by L-BFGS over factors of C0 and C1 from many random starts, with and without each variant. Every
refit is printed whose likelihood ratio (before it is divided by its Bartlett factor) differs, and in the end how many
are too low, too high and empty. One that is too high found a maximum that brute force did not.

    python benchmarks/refits_against_brute_force.py [--seeds 0:200] [--starts 6]
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.refit import null_maxima, refitter
from kron2sum_cli.model.spectrum import spectrum_of_features

Array = NDArray[np.float64]

VARIANTS = 4
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Traits Y (n, p), covariates X (n, c), features G (n, r), variants (n, VARIANTS), largest rank of C0."""

    Y: Array
    X: Array
    G: Array
    variants: Array
    rank: int


def simulate(seed: int) -> Case:
    """One data set."""
    rng = np.random.default_rng(seed)
    n, p, c = int(rng.choice([50, 80, 120])), int(rng.integers(2, 7)), int(rng.integers(1, 4))
    families = np.repeat(np.arange(n), 3)[:n]
    G = (0.7 * rng.normal(size=(n, 2 * n))[families] + 0.7 * rng.normal(size=(n, 2 * n))) / np.sqrt(2 * n)
    if rng.uniform() < 0.5:
        G -= G.mean(axis=0)
    variants = rng.binomial(2, 0.35, size=(n, VARIANTS)).astype(float)
    L0, L1 = (rng.normal(size=(p, p + 1)) / np.sqrt(p + 1) for _ in range(2))
    L0 *= np.sqrt(rng.choice([0.2, 1, 3]))
    Y = G @ rng.normal(size=(2 * n, p + 1)) @ L0.T + rng.normal(size=(n, p + 1)) @ L1.T
    Y += variants[:, : VARIANTS // 2] @ (0.7 * rng.normal(size=(VARIANTS // 2, p)))
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, c - 1))])
    return Case(Y, X, G, variants, p if rng.uniform() < 0.6 else int(rng.integers(1, p + 1)))


def refitted(case: Case, designs: list[Array]) -> list[Array]:
    """Likelihood ratios by refits, a design."""
    spectrum = spectrum_of_features(case.G, case.X)
    whole = rotate_traits(spectrum, case.Y)
    data, null = whole.without_projected(), fit(whole, case.rank, reml=True)
    fitter = refitter(data, null_maxima(data, null.point.axes, case.rank), reml=True)
    rotated = data.to_rows(case.variants)
    return [2 * (fitter.refit(rotated, design).lml - fitter.null.point.lml) for design in designs]


@dataclass(frozen=True)
class Likelihood:
    """Of rows Y (m, p) with eigenvalues s (m,), and M (m, p, e) the columns of the fixed effects."""

    Y: Array
    s: Array
    M: Array

    def value(self, C0: Array, C1: Array) -> tuple[float, Array, Array]:
        """The log-likelihood less its constant, and its derivatives in C0 and C1."""
        S = self.s[:, None, None] * C0 + C1
        sign, logdet = np.linalg.slogdet(S)
        if sign.min() <= 0:
            raise np.linalg.LinAlgError
        inverse = np.linalg.inv(S)
        SM = inverse @ self.M
        alpha = (inverse @ self.Y[:, :, None])[:, :, 0]
        if self.M.shape[2]:
            H = np.einsum("ipa,ipb->ab", self.M, SM)
            alpha = alpha - SM @ np.linalg.solve(H, np.einsum("ipa,ip->a", SM, self.Y))
        D = 0.5 * (alpha[:, :, None] * alpha[:, None, :] - inverse)
        return -0.5 * float(logdet.sum() + np.sum(alpha * self.Y)), np.tensordot(self.s, D, 1), D.sum(axis=0)

    def maxima(self, starts: list[Array], rank: int, sd: Array) -> list[tuple[float, Array]]:
        """Where searches from these starts end, the highest first."""
        p = sd.size

        def factors(x: Array) -> tuple[Array, Array]:
            return sd[:, None] * x[: p * rank].reshape(p, rank), sd[:, None] * x[p * rank :].reshape(p, p)

        def objective(x: Array) -> tuple[float, Array]:
            F0, F1 = factors(x)
            try:
                value, D0, D1 = self.value(F0 @ F0.T, F1 @ F1.T)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(x)
            slopes = [(2 * sd[:, None] * (D @ F)).ravel() for D, F in ((D0, F0), (D1, F1))]
            return -value, -np.concatenate(slopes)

        options = {"maxiter": 1500, "maxfun": 3000, "maxcor": 40, "ftol": 1e-15, "gtol": 1e-8}
        ends = []
        for start in starts:
            end = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
            again = minimize(objective, end.x, jac=True, method="L-BFGS-B", options=options)
            ends.append((-float(again.fun), again.x))
        return sorted(ends, key=lambda end: -end[0])


def by_brute_force(case: Case, designs: list[Array], starts: int, seed: int) -> list[Array]:
    """Likelihood ratios by many searches, a design."""
    rng, c, p = np.random.default_rng(seed + 10**6), case.X.shape[1], case.Y.shape[1]
    Q = np.linalg.qr(case.X, mode="complete")[0][:, c:]
    s, E = np.linalg.eigh(Q.T @ case.G @ case.G.T @ Q)
    V = Q @ E
    Y, sd = V.T @ case.Y, case.Y.std(axis=0)

    def random_start() -> Array:
        a, b = rng.uniform(0.1, 1.2, size=(2, p, 1))
        F0 = a * rng.normal(size=(p, case.rank)) / np.sqrt(case.rank)
        return np.concatenate([F0.ravel(), (b * (0.5 * rng.normal(size=(p, p)) + np.eye(p))).ravel()])

    null = Likelihood(Y, s, np.empty((*Y.shape, 0))).maxima([random_start() for _ in range(2 * starts)], case.rank, sd)
    found = []
    for design in designs:
        values = []
        for x in (V.T @ case.variants).T:
            likelihood = Likelihood(Y, s, x[:, None, None] * design)
            known = [null[0][1], *(end for value, end in null[1:] if value < null[0][0] - 1e-3)][:starts]
            ends = likelihood.maxima(known + [random_start() for _ in range(starts)], case.rank, sd)
            values.append(2 * (ends[0][0] - null[0][0]))
        found.append(np.array(values))
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:200", help="first and last + 1 (default: 0:200)")
    parser.add_argument("--starts", type=int, default=6)
    options = parser.parse_args()
    counts = dict.fromkeys(("equal", "too low", "too high", "empty"), 0)
    worst, seconds = 0.0, [0.0, 0.0]
    for seed in range(*map(int, options.seeds.split(":"))):
        case = simulate(seed)
        n, p = case.Y.shape
        designs = [np.eye(p), np.ones((p, 1))]
        began = time.perf_counter()
        found = np.concatenate(refitted(case, designs))
        seconds[0] += time.perf_counter() - began
        began = time.perf_counter()
        expected = np.concatenate(by_brute_force(case, designs, options.starts, seed))
        seconds[1] += time.perf_counter() - began
        for k, (got, want) in enumerate(zip(found, expected, strict=True)):
            low = got < want - TOLERANCE
            kind = "empty" if np.isnan(got) else "too low" if low else "too high" if got > want + TOLERANCE else "equal"
            counts[kind] += 1
            worst = max(worst, want - got) if low else worst
            if kind != "equal":
                test = ("any", "common")[k // VARIANTS]
                print(f"seed {seed}: n {n}, p {p}, rank {case.rank}, variant {k % VARIANTS}, {test}: {kind},", end=" ")
                print(f"refit {got:.5f}, brute force {want:.5f}", flush=True)
    print(
        ", ".join(f"{number} {kind}" for kind, number in counts.items()), f"; largest shortfall {worst:.2g}", end="; "
    )
    print(f"refits {seconds[0]:.1f} s, brute force {seconds[1]:.0f} s")


if __name__ == "__main__":
    main()
