"""What a scan of example_data must give, from the dense matrix of all values."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from example_commands import EXAMPLE

from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.files.samples import match
from kron2sum_cli.genotypes.bed import open_bed


def dense_projection(null_path: Path, chromosome: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    """``P y``, P, and the number of contrasts (n - c)p for the null model of a chromosome, from the dense matrix."""
    return _dense_projection(null_path.resolve(), null_path.stat().st_mtime_ns, chromosome)


@lru_cache(maxsize=4)
def _dense_projection(null_path: Path, written: int, chromosome: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    null = read_null(str(null_path))
    model, d = null.load(chromosome), null.description
    n = len(null.samples)
    GG = (model.contrasts.V * model.contrasts.s) @ model.contrasts.V.T
    Qx, cross = model.Qx, model.Qx @ model.contrasts.Kxm @ model.contrasts.V.T
    GG = GG + cross + cross.T + Qx @ model.contrasts.Kxx @ Qx.T
    axes = model.summary.axes
    Ki = np.linalg.inv(np.kron(axes.C0, GG) + np.kron(axes.C1, np.eye(n)))
    M = np.kron(d.A, d.X)
    P = Ki - Ki @ M @ np.linalg.solve(M.T @ Ki @ M, M.T @ Ki)
    P.setflags(write=False)
    return d.Y.T.ravel(), P, n * len(null.traits) - M.shape[1]


def variant(null_path: Path, index: int) -> np.ndarray:
    null = read_null(str(null_path))
    source = open_bed(str(EXAMPLE / "genotypes.bed"))
    g = source.read(np.array([index]), match(null.samples, source.samples))[:, 0].astype(float)
    return np.where(np.isnan(g), np.nanmean(g), g)
