"""The time of the null fit after the eigendecomposition, as a multiple of the eigendecomposition's.

    python benchmarks/fit_many_traits.py [--samples 1940] [--traits 2,10,50,100]

In processor time of one thread of BLAS, which is what ``kron2sum fit`` gives both.
"""

import argparse
from time import process_time

import numpy as np
from threadpoolctl import threadpool_limits

from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.spectrum import Array, spectrum_of_relationship


def compare(G: Array, K: Array, p: int, rng: np.random.Generator) -> str:
    """A row of the table: p simulated traits with the relationship matrix K = GGᵀ."""
    L0, L1 = rng.normal(size=(2, p, p + 2)) / np.sqrt(p + 2)
    Y = G @ rng.normal(size=(G.shape[1], p)) @ np.linalg.cholesky(L0 @ L0.T).T
    Y += rng.normal(size=(len(G), p)) @ np.linalg.cholesky(L1 @ L1.T).T
    start = process_time()
    spectrum = spectrum_of_relationship(K, np.ones((len(G), 1)))
    middle = process_time()
    found = fit(rotate_traits(spectrum, Y), p, True).certificate
    eigh, fitting = middle - start, process_time() - middle
    return (
        f"{p:>6} {eigh:8.2f} {fitting:8.2f} {fitting / eigh:9.2f} {found.steps:>6} {found.evaluations:>12}"
        f"   {found.active_C0}, {found.active_C1}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1940)
    parser.add_argument("--traits", default="2,10,50,100")
    options = parser.parse_args()
    n, rng = options.samples, np.random.default_rng(1)
    families = rng.normal(size=(n // 4 + 1, 2 * n))[np.arange(n) // 4]
    G = (families + rng.normal(size=(n, 2 * n))) / np.sqrt(4 * n)
    print("traits  eigh, s   fit, s  multiple  steps  evaluations  boundary of C0, C1")
    with threadpool_limits(1):
        K = G @ G.T
        for p in map(int, options.traits.split(",")):
            print(compare(G, K, p, rng), flush=True)


if __name__ == "__main__":
    main()
