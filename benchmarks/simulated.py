"""Data of any size for the benchmarks: a PLINK file set of unlinked variants and a table of traits."""

from pathlib import Path

import numpy as np


def write_genotypes(stem: Path, n: int, variants: int, seed: int = 1, missing: float = 0.0) -> None:
    """A PLINK 1 file set of independent variants in Hardy-Weinberg equilibrium, on 20 chromosomes."""
    rng = np.random.default_rng(seed)
    bytes_a_variant = -(-n // 4)
    with open(stem.with_suffix(".bed"), "wb") as bed:
        bed.write(b"\x6c\x1b\x01")
        for start in range(0, variants, 1000):
            size = min(1000, variants - start)
            f = rng.uniform(0.05, 0.5, size=(size, 1)).astype(np.float32)
            copies = (rng.random((size, n), dtype=np.float32) < f).astype(np.uint8)
            copies += rng.random((size, n), dtype=np.float32) < f
            codes = np.array([3, 2, 0], dtype=np.uint8)[copies]  # copies of allele 1
            if missing:
                codes[rng.random((size, n), dtype=np.float32) < missing] = 1
            padded = np.zeros((size, bytes_a_variant * 4), dtype=np.uint8)
            padded[:, :n] = codes
            quads = padded.reshape(size, bytes_a_variant, 4)
            bed.write((quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6).tobytes())
    chromosome = np.arange(variants) * 20 // max(variants, 1) + 1
    stem.with_suffix(".bim").write_text(
        "".join(f"{chromosome[i]}\tv{i}\t0\t{1000 + 100 * i}\tA\tG\n" for i in range(variants))
    )
    stem.with_suffix(".fam").write_text("".join(f"f{i}\ti{i}\t0\t0\t0\t-9\n" for i in range(n)))


def write_traits(path: Path, n: int, p: int, seed: int = 2) -> None:
    """P correlated traits of the same samples, without genetics."""
    rng = np.random.default_rng(seed)
    mix = np.eye(p) + 0.3 * rng.normal(size=(p, p)) / np.sqrt(p)
    Y = rng.normal(size=(n, p)) @ mix
    rows = (f"f{i},i{i}," + ",".join(f"{y:.6f}" for y in Y[i]) for i in range(n))
    path.write_text("FID,IID," + ",".join(f"t{j + 1}" for j in range(p)) + "\n" + "\n".join(rows) + "\n")
