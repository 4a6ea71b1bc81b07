"""The time of the null fit after the eigendecomposition, as a multiple of the eigendecomposition's.

python benchmarks/fit_many_traits.py [--samples 1940] [--traits 2,10,50,100]
"""

import argparse
from time import perf_counter

import numpy as np

from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import fit
from kron2sum_cli.model.spectrum import spectrum_of_relationship


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1940)
    parser.add_argument("--traits", default="2,10,50,100")
    options = parser.parse_args()
    n = options.samples
    rng = np.random.default_rng(1)
    families = rng.normal(size=(n // 4 + 1, 2 * n))[np.arange(n) // 4]
    G = (families + rng.normal(size=(n, 2 * n))) / np.sqrt(4 * n)
    K, X = G @ G.T, np.ones((n, 1))
    print("traits  eigh, s   fit, s  multiple  steps  evaluations  boundary of C0, C1")
    for p in map(int, options.traits.split(",")):
        L0, L1 = rng.normal(size=(2, p, p + 2)) / np.sqrt(p + 2)
        Y = G @ rng.normal(size=(2 * n, p)) @ np.linalg.cholesky(L0 @ L0.T).T
        Y += rng.normal(size=(n, p)) @ np.linalg.cholesky(L1 @ L1.T).T
        start = perf_counter()
        spectrum = spectrum_of_relationship(K, X)
        middle = perf_counter()
        certificate = fit(rotate_traits(spectrum, Y), p, True).certificate
        end = perf_counter()
        print(
            f"{p:>6} {middle - start:8.2f} {end - middle:8.2f} {(end - middle) / (middle - start):9.2f}"
            f" {certificate.steps:>6} {certificate.evaluations:>12}   {certificate.active_C0}, {certificate.active_C1}",
            flush=True,
        )


if __name__ == "__main__":
    main()
