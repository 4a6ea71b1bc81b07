"""Small PLINK file sets, made on the spot."""

from collections.abc import Callable, Sequence
from pathlib import Path

import bed_reader
import numpy as np
import pytest
from numpy.typing import NDArray

MakeBed = Callable[..., str]


def simulate_dosages(n: int, m: int, seed: int = 0, missing: float = 0.02, min_f: float = 0.05) -> NDArray[np.float32]:
    """(n, m) hard calls with frequencies of all sizes; NaN where missing."""
    rng = np.random.default_rng(seed)
    dosages = rng.binomial(2, rng.uniform(min_f, 0.95, m), (n, m)).astype(np.float32)
    dosages[rng.random((n, m)) < missing] = np.nan
    return dosages


@pytest.fixture(name="simulate_dosages")
def simulate_dosages_fixture() -> Callable[..., NDArray[np.float32]]:
    return simulate_dosages


@pytest.fixture
def make_bed(tmp_path: Path) -> MakeBed:
    """Writes (n, m) dosages as a PLINK 1 file set and returns the path of its ``.bed``."""

    def make(
        dosages: NDArray[np.float32],
        name: str = "g",
        chromosomes: Sequence[str] | None = None,
        positions: Sequence[int] | None = None,
    ) -> str:
        n, m = dosages.shape
        path = tmp_path / f"{name}.bed"
        bed_reader.to_bed(
            path,
            np.asfortranarray(dosages),
            properties={
                "fid": [f"f{i // 3}" for i in range(n)],
                "iid": [f"i{i}" for i in range(n)],
                "father": ["0"] * n,
                "mother": ["0"] * n,
                "sex": [2] * n,
                "pheno": ["1.5"] * n,
                "chromosome": ["1"] * m if chromosomes is None else list(chromosomes),
                "sid": [f"rs{j}" for j in range(m)],
                "cm_position": [0] * m,
                "bp_position": list(range(1, m + 1)) if positions is None else list(positions),
                "allele_1": ["A"] * m,
                "allele_2": ["G"] * m,
            },
        )
        return str(path)

    return make
