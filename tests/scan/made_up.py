"""Genotypes in memory and null models of them, for direct tests of blocks and inputs of a scan."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.scan_columns import scan_schema
from kron2sum_cli.genotypes.filters import VariantFilters
from kron2sum_cli.genotypes.source import VARIANT_SCHEMA, Variants
from kron2sum_cli.model.collinearity import GenotypedCovariates
from kron2sum_cli.model.fitting import certified, climb
from kron2sum_cli.model.hypotheses import Hypothesis, TestContext, named_hypothesis
from kron2sum_cli.model.null_model import NullModel, TraitData, null_likelihood, rotate_samples
from kron2sum_cli.model.trait_axes import TraitAxes
from kron2sum_cli.scan.block import Scan
from kron2sum_cli.scan.refits import Once, RefitPlan, simulated_factors

Array = NDArray[np.float64]
N, TRAITS = 60, ("a", "b")


@dataclass(frozen=True)
class GenotypesInMemory:
    """Dosages (n, v), NaN where missing, of variants on some chromosomes."""

    dosages: NDArray[np.float32]
    chromosomes: Sequence[str]
    path: str = "memory"
    files: tuple[str, ...] = ()
    reads: list[int] = field(default_factory=list)
    has_dosages: bool = False
    ploidy: int = 2

    @property
    def samples(self) -> Samples:
        return Samples(None, tuple(f"i{k}" for k in range(len(self.dosages))), self.path)

    @property
    def variants(self) -> Variants:
        v = self.dosages.shape[1]
        columns = [list(self.chromosomes), range(1, v + 1), [f"v{k}" for k in range(v)], ["A"] * v, ["G"] * v]
        return Variants(pa.table(columns, schema=VARIANT_SCHEMA), self.path)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        self.reads.append(len(variants))
        return np.asfortranarray(self.dosages[np.ix_(rows, variants)])


def genotypes(v: int = 40, chromosomes: Sequence[str] | None = None, seed: int = 0) -> GenotypesInMemory:
    rng = np.random.default_rng(seed)
    dosages = rng.binomial(2, rng.uniform(0.2, 0.8, v), size=(N, v)).astype(np.float32)
    return GenotypesInMemory(dosages, chromosomes or ["1"] * v)


def trait_data(missing: bool = False, seed: int = 1) -> TraitData:
    rng = np.random.default_rng(seed)
    Y = rng.normal(size=(N, len(TRAITS)))
    if missing:
        Y[::7, 0] = np.nan
    X = np.column_stack([np.ones(N), rng.normal(size=N)])
    return TraitData(Y, np.eye(len(TRAITS)), X)


def null_model(data: TraitData, seed: int = 2, start: TraitAxes | None = None) -> NullModel:
    """The null model, by a search or by one climb from a start."""
    G = np.random.default_rng(seed).normal(size=(N, 30)) / np.sqrt(30)
    likelihood = null_likelihood(rotate_samples(G, True, data, True), data, True)
    if start is None:
        return likelihood.null_model(likelihood.fit(len(TRAITS)))
    return likelihood.null_model(certified(climb(likelihood.contrasts, start, len(TRAITS), True)))


def refit_plan(model: NullModel, tests: Sequence[Hypothesis], threshold: float) -> RefitPlan:
    refits = model.refits()
    return RefitPlan(refits, tests, Once(lambda: simulated_factors(refits, tests, 0)), -float(np.log10(threshold)))


def scan_of(
    source: GenotypesInMemory, data: TraitData, refit: float = 0.0, model: NullModel | None = None, **filters: float
) -> Scan:
    """A scan in double precision for any and for common effects, under a model or under that of a search."""
    model = model or null_model(data)
    scanner = model.scanner(np.float64)
    observed = np.isfinite(data.Y) if data.has_missing else None
    context = TestContext(model.summary.axes.T, model.summary.quadratic, data.nobserved, data.nobserved - data.neffects)
    tests = [named_hypothesis(name, TRAITS) for name in ("any", "common")]
    return Scan(
        genotypes=source,
        samples=np.arange(N),
        filters=VariantFilters(**filters),
        scanner=scanner,
        spans_intercept=model.spans_intercept,
        axes=model.summary.axes,
        context=context,
        tests=tests,
        refit=refit_plan(model, tests, refit) if refit else None,
        traits=TRAITS,
        observed=observed,
        covariates=GenotypedCovariates(data.X, observed),
        columns=scan_schema(TRAITS, ["common"], refit > 0, data.coupled, data.has_missing),
    )
