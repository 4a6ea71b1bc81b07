"""Null models and refits against brute force: their log-likelihoods, and the same by many searches from random starts.

Small data sets of all four kinds of null model: with a dense relationship matrix or one of families, of complete traits
(50 to 120 samples, 2 to 6 traits) or with 15 to 40% of the cells missing (40 to 70 samples, 2 to 4 traits); C0 of full
or bounded rank, one to three covariates, variants with and without effects. The Gaussian density of the observed cells,
restricted to contrasts of the covariates, is written down cell by cell, and maximised by L-BFGS over factors of C0 and
C1 from many random starts, with and without each variant. Printed are every null model and every refit whose
log-likelihood or likelihood ratio (before it is divided by its Bartlett factor) differs, and in the end, for each kind,
the largest differences and how many refits are too low, too high and empty. One that is too high found a maximum that
brute force did not, or has a null model that is too low.

    python benchmarks/refits_against_brute_force.py [--kind all] [--seeds 0:50] [--starts 6]
"""

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import minimize

from kron2sum_cli.errors import ConvergenceError
from kron2sum_cli.model.families.null_model import likelihood_of_families
from kron2sum_cli.model.families.spectrum import family_spectrum
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples

Array = NDArray[np.float64]

KINDS = ("dense", "missing", "families", "observed-families")
VARIANTS = 4
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Traits Y (n, p), NaN where missing, covariates X (n, c), variants (n, VARIANTS), and the largest rank of C0.

    ``K`` (n, n) are the relationships, which fall into ``families`` or not.
    """

    Y: Array
    X: Array
    K: Array
    variants: Array
    rank: int
    families: bool

    @property
    def complete(self) -> bool:
        """Whether no cell is missing."""
        return not np.isnan(self.Y).any()


def absent_cells(rng: np.random.Generator, n: int, p: int, complete: int) -> NDArray[np.bool_]:
    """15 to 40% of the cells, of no sample all, with so many complete samples.

    With fewer of them than traits and effects on each, a combination of the traits can lose all variance, and the
    likelihood has no maximum.
    """
    while True:
        absent = rng.uniform(size=(n, p)) < rng.uniform(0.15, 0.4)
        absent[absent.all(axis=1), rng.integers(p)] = False
        if np.count_nonzero(~absent.any(axis=1)) >= complete:
            return absent


def simulate(kind: str, seed: int) -> Case:
    """One data set."""
    rng = np.random.default_rng(seed if kind == "dense" else [KINDS.index(kind), seed])
    missing, of_families = kind in ("missing", "observed-families"), kind.endswith("families")
    n = int(rng.integers(40, 71)) if missing else int(rng.choice([50, 80, 120]))
    p, c = int(rng.integers(2, 5 if missing else 7)), int(rng.integers(1, 4))
    families = np.repeat(np.arange(n), rng.integers(1, 6, size=n) if of_families else 3)[:n]
    G = (0.7 * rng.normal(size=(n, 2 * n))[families] + 0.7 * rng.normal(size=(n, 2 * n))) / np.sqrt(2 * n)
    if of_families:
        G = np.linalg.cholesky((G @ G.T) * np.equal.outer(families, families))
    elif rng.uniform() < 0.5:
        G -= G.mean(axis=0)
    variants = rng.binomial(2, 0.35, size=(n, VARIANTS)).astype(float)
    L0, L1 = (rng.normal(size=(p, p + 1)) / np.sqrt(p + 1) for _ in range(2))
    L0 *= np.sqrt(rng.choice([0.2, 1, 3]))
    Y = G @ rng.normal(size=(G.shape[1], p + 1)) @ L0.T + rng.normal(size=(n, p + 1)) @ L1.T
    Y += variants[:, : VARIANTS // 2] @ (0.7 * rng.normal(size=(VARIANTS // 2, p)))
    X = np.hstack([np.ones((n, 1)), rng.normal(size=(n, c - 1))])
    rank = p if rng.uniform() < 0.6 else int(rng.integers(1, p + 1))
    if missing:
        Y[absent_cells(rng, n, p, p + c + 1)] = np.nan
    return Case(Y, X, G @ G.T, variants, rank, of_families)


def null_model(case: Case) -> NullModel:
    """As the program fits it."""
    data = TraitData(case.Y, np.eye(case.Y.shape[1]), case.X)
    if case.families:
        likelihood = likelihood_of_families(family_spectrum(scipy.sparse.csr_array(case.K)), data, True)
    else:
        likelihood = null_likelihood(rotate_samples(case.K.copy(), False, data, True), data, True)
    return likelihood.null_model(likelihood.fit(case.rank))


def by_program(case: Case, designs: list[Array]) -> tuple[float, Array]:
    """Log-likelihood of the null model, and likelihood ratios by refits, those of a design side by side."""
    model = null_model(case)
    refits = model.refits()
    refit = refits.of_variants(case.variants, np.zeros(VARIANTS))
    return model.summary.lml, np.concatenate([2 * (refit(design).lml - refits.null_lml) for design in designs])


def over_cells(A: Array, B: Array) -> Array:
    """``AᵀB`` of columns (b, k, i) and (b, k, j): (i, j)."""
    return np.tensordot(A, B, axes=([0, 1], [0, 1]))


@dataclass(frozen=True)
class Likelihood:
    """Of cells y (b, k) in b independent blocks, restricted to contrasts of the columns R (b, k, r).

    A cell is one of a sample, ``samples`` (b, k), and of a trait, ``traits`` (k,). ``K`` (b, k, k) are relationships of
    the cells' samples, ``same`` (b, k, k) is 1 where these are the same, and ``M`` (b, k, e) are columns of fixed
    effects by maximum likelihood.
    """

    y: Array
    samples: NDArray[np.intp]
    traits: NDArray[np.intp]
    K: Array
    same: Array
    R: Array
    M: Array

    def with_variant(self, x: Array, design: Array) -> "Likelihood":
        """With a variant x over the samples, with effects in the span of a design (p, e)."""
        return replace(self, M=x[self.samples][:, :, None] * design[self.traits])

    def value(self, C0: Array, C1: Array) -> tuple[float, Array, Array]:
        """The log-likelihood, and its derivatives in C0 and C1; raises LinAlgError where the covariance is singular."""
        pairs, r = np.ix_(self.traits, self.traits), self.R.shape[2]
        V = C0[pairs] * self.K + C1[pairs] * self.same
        inverse, diagonal = np.linalg.inv(V), np.diagonal(np.linalg.cholesky(V), axis1=1, axis2=2)
        y, F = self.y[:, :, None], np.concatenate([self.R, self.M], axis=2)
        VF = inverse @ F
        H, VR = over_cells(F, VF), VF[:, :, :r]
        alpha = inverse @ y - VF @ np.linalg.solve(H, over_cells(VF, y))
        Q = inverse - VR @ np.linalg.solve(H[:r, :r], VR.transpose(0, 2, 1))
        D = 0.5 * (alpha @ alpha.transpose(0, 2, 1) - Q)
        own = np.eye(len(C0))[self.traits]
        slope0, slope1 = (own.T @ np.sum(D * part, axis=0) @ own for part in (self.K, self.same))
        logdet = 2 * np.log(diagonal).sum() + np.linalg.slogdet(H[:r, :r])[1]
        constant = (y.size - r) * np.log(2 * np.pi) - np.linalg.slogdet(over_cells(self.R, self.R))[1]
        return -0.5 * float(constant + logdet + np.sum(alpha * y)), slope0, slope1

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


def likelihood_of(case: Case) -> tuple[Likelihood, Array]:
    """The likelihood without a variant, and what turns variants (n,) into those over its samples.

    Complete traits fall into contrasts of the covariates that are independent of each other.
    """
    (n, p), c = case.Y.shape, case.X.shape[1]
    turn, Y, X, K = np.eye(n), case.Y, case.X, case.K
    samples, traits = (one[None] for one in np.nonzero(np.isfinite(Y)))
    if case.complete:
        Q = np.linalg.qr(X, mode="complete")[0][:, c:]
        s, E = np.linalg.eigh(Q.T @ K @ Q)
        turn = (Q @ E).T
        Y, X, K = turn @ Y, np.empty((n - c, 0)), np.diag(s)
        samples, traits = np.indices(Y.shape)
    pairs, own = (samples[:, :, None], samples[:, None, :]), np.eye(p)[traits[0]]
    R = (own[:, :, None] * X[samples][:, :, None, :]).reshape(*samples.shape, -1)
    same = np.equal(*pairs).astype(float)
    return Likelihood(Y[samples, traits], samples, traits[0], K[pairs], same, R, R[:, :, :0]), turn


def by_brute_force(case: Case, designs: list[Array], starts: int, seed: int) -> tuple[float, Array]:
    """What `by_program` gives, by many searches."""
    rng, p = np.random.default_rng(seed + 10**6), case.Y.shape[1]
    likelihood, turn = likelihood_of(case)
    sd = np.nanstd(case.Y, axis=0)

    def random_starts(number: int) -> list[Array]:
        found = []
        for _ in range(number):
            a, b = rng.uniform(0.1, 1.2, size=(2, p, 1))
            F0 = a * rng.normal(size=(p, case.rank)) / np.sqrt(case.rank)
            found.append(np.concatenate([F0.ravel(), (b * (0.5 * rng.normal(size=(p, p)) + np.eye(p))).ravel()]))
        return found

    null = likelihood.maxima(random_starts(2 * starts), case.rank, sd)
    known = [null[0][1], *(end for value, end in null[1:] if value < null[0][0] - 1e-3)][:starts]
    ratios = []
    for design in designs:
        for g in case.variants.T:
            ends = likelihood.with_variant(turn @ g, design).maxima(known + random_starts(starts), case.rank, sd)
            ratios.append(2 * (ends[0][0] - null[0][0]))
    return null[0][0], np.array(ratios)


class Tally:
    """What was found for one kind."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(("equal", "too low", "too high", "empty"), 0)
        self.data_sets, self.null_off, self.ratio_off, self.seconds = 0, 0.0, 0.0, [0.0, 0.0]

    def timed(self, which: int, function: Any, *arguments: Any) -> Any:
        """What the function gives; its time counts as that of the program (0) or of brute force (1)."""
        began = time.process_time()
        found = function(*arguments)
        self.seconds[which] += time.process_time() - began
        return found

    def compare(self, kind: str, seed: int, starts: int) -> None:
        """Compare one data set, and print what differs."""
        case = simulate(kind, seed)
        n, p = case.Y.shape
        label = f"{kind}, seed {seed}: n {n}, p {p}, rank {case.rank}"
        designs = [np.eye(p), np.ones((p, 1))]
        self.data_sets += 1
        try:
            null, found = self.timed(0, by_program, case, designs)
        except ConvergenceError as error:
            print(f"{label}: no null model ({error})", flush=True)
            return
        best, expected = self.timed(1, by_brute_force, case, designs, starts, seed)
        self.null_off = max(self.null_off, abs(null - best))
        if abs(null - best) > TOLERANCE:
            print(f"{label}: log-likelihood of the null model {null:.5f}, brute force {best:.5f}", flush=True)
        for k, (got, want) in enumerate(zip(found, expected, strict=True)):
            off = got - want
            verdict = "empty" if np.isnan(off) else "too low" if off < -TOLERANCE else "too high"
            self.counts["equal" if abs(off) <= TOLERANCE else verdict] += 1
            self.ratio_off = np.fmax(self.ratio_off, abs(off))
            if not abs(off) <= TOLERANCE:
                test = f"variant {k % VARIANTS}, {('any', 'common')[k // VARIANTS]}"
                print(f"{label}, {test}: {verdict}, refit {got:.5f}, brute force {want:.5f}", flush=True)

    def summary(self) -> str:
        """All of it in a line."""
        counts = ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items())
        differences = f"log-likelihood {self.null_off:.1g}, likelihood ratio {self.ratio_off:.1g}"
        seconds = f"program {self.seconds[0]:.0f} s, brute force {self.seconds[1]:.0f} s"
        return f"{self.data_sets} data sets, refits {counts}; largest difference: {differences}; {seconds}"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--seeds", default="0:50", help="first and last + 1 (default: 0:50)")
    parser.add_argument("--starts", type=int, default=6)
    options = parser.parse_args()
    for kind in KINDS if options.kind == "all" else [options.kind]:
        tally = Tally()
        for seed in range(*map(int, options.seeds.split(":"))):
            tally.compare(kind, seed, options.starts)
        print(f"{kind}: {tally.summary()}", flush=True)


if __name__ == "__main__":
    main()
