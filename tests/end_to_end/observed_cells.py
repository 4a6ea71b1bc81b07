"""Traits of example_data with missing cells, and the dense Gaussian of what is observed.

Nothing of the model is imported: the relationship matrix comes from the genotypes by its definition, everything else
from rows and columns of the n·p × n·p covariance.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from example_commands import EXAMPLE, kron2sum
from numpy.typing import NDArray

from kron2sum_cli.genotypes.bed import open_bed
from tests.model.missing_oracle import Observed

Array = NDArray[np.float64]

TRAITS = ("height", "weight", "glucose")
SAMPLES = 130
PHENOTYPED = 110


def write_tables(folder: Path) -> None:
    """``keep.txt``, the samples used; ``some.csv``, traits with missing cells of the first of them; ``covar.csv``."""
    fam = pd.read_csv(EXAMPLE / "genotypes.fam", sep=r"\s+", header=None, dtype=str)[:SAMPLES]
    fam[[0, 1]].to_csv(folder / "keep.txt", sep=" ", header=False, index=False)
    traits = pd.read_csv(EXAMPLE / "phenotypes.csv").set_index("IID").loc[fam[1][:PHENOTYPED]].reset_index()
    values = traits[list(TRAITS)].to_numpy(copy=True)
    rng = np.random.default_rng(3)
    values[rng.random(values.shape) < 0.25] = np.nan
    values[:4] = np.nan
    traits[list(TRAITS)] = values
    traits[["FID", "IID", *TRAITS]].to_csv(folder / "some.csv", index=False, na_rep="NA")
    covariates = pd.read_csv(EXAMPLE / "covariates.csv").set_index("IID").loc[fam[1][:-3]].reset_index()
    covariates[["FID", "IID", "sex", "age"]].to_csv(folder / "covar.csv", index=False)


@lru_cache
def genotypes() -> tuple[Array, list[str], NDArray[np.str_]]:
    """All dosages (n, r) of example_data, NaN where missing; IIDs; chromosomes."""
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    n, r = len(source.samples), len(source.variants)
    dosages = source.read(np.arange(r), np.arange(n)).astype(float)
    dosages.setflags(write=False)
    return dosages, list(source.samples.iids), np.array(source.variants.table["CHR"].to_pylist())


@lru_cache
def relationship(without: str | None = None, every: int = 1) -> pd.DataFrame:
    """GCTA's relationship of all samples of example_data, by IID, without a chromosome or of every few variants."""
    dosages, iids, chromosomes = genotypes()
    f = np.nanmean(dosages, axis=0) / 2
    kept = (np.minimum(f, 1 - f) >= 0.01) & (np.isnan(dosages).mean(axis=0) <= 0.05) & (chromosomes != without)
    kept &= np.arange(len(f)) % every == 0
    G = (dosages - 2 * f)[:, kept] / np.sqrt(2 * f * (1 - f))[kept] / np.sqrt(kept.sum())
    G = np.nan_to_num(G)
    return pd.DataFrame(G @ G.T, iids, iids)


@dataclass(frozen=True)
class Dense(Observed):
    """The observed cells' Gaussian for samples ``iids``."""

    iids: list[str]

    def drop(self, A1: Array, G: Array) -> tuple[float, Array, Array]:
        """How far effects ``A1 ⊗ G`` lower ``rᵀK⁻¹r``, the effects, and their covariance for scale 1."""
        M1 = np.kron(A1, G)[self.seen]
        covariance = np.linalg.inv(M1.T @ self.Q @ M1)
        u = M1.T @ self.Q @ self.y
        return float(u @ covariance @ u), covariance @ u, covariance

    def genetic(self, R: pd.DataFrame, iids: list[str]) -> tuple[Array, Array]:
        """Means and variances of the genetic values of samples, trait by trait for each: (t·p,)."""
        covariance = np.kron(self.C0, R.loc[iids, self.iids])[:, self.seen]
        own = np.kron(np.diag(self.C0), np.diag(R.loc[iids, iids]))
        mean, variance = self.kriging(covariance, np.zeros((own.size, self.M.shape[1])), own)
        return mean.reshape(-1, len(iids)).T.ravel(), variance.reshape(-1, len(iids)).T.ravel()


def dense_of(
    folder: Path, null: Path, whole: bool = False, A: Array | None = None, loco: str | None = None, every: int = 1
) -> Dense:
    """The Gaussian of a null model's own C0 and C1, on the tables of `write_tables`.

    ``whole`` leaves only samples with all traits; ``loco`` is the chromosome left out; ``every`` how many variants
    there are for each that the relationship matrix has.
    """
    found = exported(null)
    if loco is not None:
        found |= found["loco"][loco]
    traits = pd.read_csv(folder / "some.csv", index_col="IID")[list(TRAITS)]
    covariates = pd.read_csv(folder / "covar.csv", index_col="IID")[["sex", "age"]]
    traits = traits.dropna(how="any" if whole else "all")
    R = relationship(loco, every)
    iids = [iid for iid in R.index if iid in traits.index and iid in covariates.index]
    X = np.column_stack([np.ones(len(iids)), covariates.loc[iids]])
    C0, C1 = np.array(found["C0"]), np.array(found["C1"])
    return Dense(
        traits.loc[iids].to_numpy(), np.eye(3) if A is None else A, X, R.loc[iids, iids].to_numpy(), C0, C1, iids
    )


def exported(null: Path) -> dict:
    """The estimates of a null model as `export --to json` writes them."""
    out = null.with_suffix(".json")
    assert kron2sum("export", "-q", null, "--to", "json", "--out", out) == 0
    found: dict = json.loads(out.read_text())
    return found


def fit(folder: Path, out: str, *options: object, missing: str = "exact", pheno: str = "some.csv") -> int:
    """Fit the tables of a folder."""
    return kron2sum(
        "fit", "-q", "--threads", "1", "--pheno", folder / pheno, "--covar", folder / "covar.csv", "--keep",
        folder / "keep.txt", "--grm", EXAMPLE / "genotypes.bed", "--missing", missing, "--out", folder / out, *options
    )  # fmt: skip
