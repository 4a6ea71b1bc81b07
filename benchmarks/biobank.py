"""Fit and scan of a biobank: families among many unrelated samples, and plink2's regressions of the same traits.

A share of the samples lives in families of 2 to 6 full siblings; genotypes are inherited within them. Traits have a
heritability of 0.5 in families. Everything is made block by block, for any number of samples. Printed are processor
seconds, peak memory, and the ratio to ``plink2 --glm hide-covar`` of the same traits, covariates and file.

    python -m benchmarks.biobank --samples 100000 --traits 10 --covariates 20 --variants 2000 [--folder DIR]
"""

import argparse
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import KRON2SUM, environment

IN_FAMILIES = 0.3
BLOCK = 250
"""Variants that are simulated at once."""


def family_of_samples(n: int, rng: np.random.Generator, share: float = IN_FAMILIES) -> NDArray[np.intp]:
    """Number of the family of every sample, families of 2 to 6 first, then samples alone."""
    sizes = rng.integers(2, 7, size=n)
    ends = np.cumsum(sizes)
    families = int(np.searchsorted(ends, share * n))
    members = np.repeat(np.arange(families), sizes[:families])
    return np.concatenate([members, families + np.arange(n - len(members))])


def inherited(family: NDArray[np.intp], variants: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Copies of an allele (variants, n) that siblings inherit from the same two parents."""
    n, families = len(family), int(family.max()) + 1
    f = rng.uniform(0.05, 0.5, size=(variants, 1)).astype(np.float32)
    copies = np.zeros((variants, n), dtype=np.uint8)
    for _ in ("mother", "father"):
        first, second = (rng.random((2, variants, families), dtype=np.float32) < f).astype(np.uint8)
        which = rng.random((variants, n), dtype=np.float32) < 0.5
        copies += np.where(which, first[:, family], second[:, family])
    return copies


def write_genotypes(stem: Path, family: NDArray[np.intp], variants: int, rng: np.random.Generator) -> None:
    """A PLINK 1 file set in which siblings inherit from the same two parents."""
    n = len(family)
    with open(stem.with_suffix(".bed"), "wb") as bed:
        bed.write(b"\x6c\x1b\x01")
        for start in range(0, variants, BLOCK):
            size = min(BLOCK, variants - start)
            copies = inherited(family, size, rng)
            padded = np.zeros((size, -(-n // 4) * 4), dtype=np.uint8)
            padded[:, :n] = np.array([3, 2, 0], dtype=np.uint8)[copies]
            quads = padded.reshape(size, -1, 4)
            bed.write((quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6).tobytes())
    stem.with_suffix(".bim").write_text("".join(f"1\tv{i}\t0\t{100 * i + 100}\tA\tG\n" for i in range(variants)))
    stem.with_suffix(".fam").write_text("".join(f"i{i}\ti{i}\t0\t0\t0\t-9\n" for i in range(n)))


def write_relationships(stem: Path, family: NDArray[np.intp]) -> None:
    """GCTA's sparse matrix: 0.5 between siblings."""
    n = len(family)
    with open(f"{stem}.grm.sp", "w") as file:
        starts = np.flatnonzero(np.r_[True, np.diff(family) > 0])
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), n], strict=True):
            for i in range(start, stop):
                file.writelines(f"{i}\t{k}\t0.5\n" for k in range(start, i))
                file.write(f"{i}\t{i}\t1\n")
    Path(f"{stem}.grm.id").write_text("".join(f"i{i}\ti{i}\n" for i in range(n)))


def write_table(path: Path, prefix: str, values: NDArray[np.float64]) -> None:
    """A table as both programs read it."""
    header = "\t".join(["#FID", "IID", *(f"{prefix}{j}" for j in range(values.shape[1]))])
    with open(path, "w") as file:
        file.write(header + "\n")
        for i, row in enumerate(values):
            cells = "\t".join("NA" if np.isnan(x) else f"{x:.6g}" for x in row)
            file.write(f"i{i}\ti{i}\t{cells}\n")


def simulate(folder: Path, n: int, p: int, c: int, variants: int, missing: float) -> None:
    """All files of one study."""
    rng = np.random.default_rng(1)
    family = family_of_samples(n, rng)
    write_genotypes(folder / "g", family, variants, rng)
    write_relationships(folder / "k", family)
    mix = np.eye(p) + 0.3 * rng.normal(size=(p, p)) / np.sqrt(p)
    shared = rng.normal(size=(int(family.max()) + 1, p))[family] * np.sqrt(0.5)
    Y = (
        np.sqrt(0.5) * (shared + np.sqrt(0.5) * rng.normal(size=(n, p))) + np.sqrt(0.5) * rng.normal(size=(n, p))
    ) @ mix
    Y[rng.random(Y.shape) < missing] = np.nan
    write_table(folder / "y.tsv", "t", Y)
    write_table(folder / "x.tsv", "x", rng.normal(size=(n, c - 1)))


def run(command: Sequence[str | Path], folder: Path, threads: int) -> tuple[float, float]:
    """Processor seconds and peak memory in MiB of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [str(word) for word in command]
    subprocess.run(
        words, check=True, cwd=folder, env=environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def main() -> None:
    """Simulate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--traits", type=int, default=10)
    parser.add_argument("--covariates", type=int, default=20, help="with the intercept")
    parser.add_argument("--variants", type=int, default=2000)
    parser.add_argument("--missing", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        simulate(folder, options.samples, options.traits, options.covariates, options.variants, options.missing)
        threads = ("--threads", str(options.threads))
        exact = ("--missing", "exact") if options.missing else ()
        tables = ("--pheno", "y.tsv", "--covar", "x.tsv")
        fit = (*KRON2SUM, "fit", *tables, "--grm", "k", *exact, *threads)
        scan = (*KRON2SUM, "scan", "--geno", "g.bed", "--refit", "0", *threads)
        for what, command in (("fit", fit), ("scan", scan)):
            cpu, memory = run(command, folder, options.threads)
            print(f"{what}: {cpu:.1f} s of processor time, {memory:.0f} MiB so far at most", flush=True)
        print(f"scan: {1000 * cpu / options.variants:.2f} ms a variant", flush=True)
        if shutil.which("plink2"):
            glm = ("plink2", "--bfile", "g", "--glm", "hide-covar", *tables, *threads, "--out", "plink")
            peer, _ = run(glm, folder, options.threads)
            print(
                f"plink2 --glm: {peer:.1f} s, {1000 * peer / options.variants:.2f} ms a variant; ratio {cpu / peer:.2f}"
            )


if __name__ == "__main__":
    main()
