"""A variant against glimix-core's scanner at the same null model (rank 1, r = 200, n = 1,197).

    pip install glimix-core==3.1.14; python benchmarks/against_glimix.py

glimix-core tests one variant a call; ours a block. Both have their null model fitted; only the scan is timed.
"""

from time import perf_counter

import numpy as np
from glimix_core.lmm import Kron2Sum as Theirs
from threadpoolctl import threadpool_limits

from kron2sum_cli import Kron2Sum
from kron2sum_cli.model.hypotheses import TestContext, hypothesis, test
from kron2sum_cli.model.scanner import block_scanner

BLOCKS, WIDTH, CALLS = 20, 1024, 20


def main() -> None:
    """Print the times and the ratio."""
    rng = np.random.default_rng(1)
    n, p, r = 1197, 2, 200
    G = rng.normal(size=(n, r)) / np.sqrt(r)
    Y = G @ rng.normal(size=(r, p)) + rng.normal(size=(n, p))
    X = np.ones((n, 1))
    ours = Kron2Sum(Y, np.eye(p), X, G, rank=1)
    ours.fit(verbose=False)
    theirs = Theirs(Y, np.eye(p), X, G, rank=1)
    theirs.fit(verbose=False)
    variants = rng.binomial(2, 0.3, size=(n, WIDTH)).astype(np.float32)
    variants -= variants.mean(axis=0)
    point = ours.point
    scanner, size = block_scanner(point, ours.covariate_basis), n * p
    context = TestContext(point.axes.T, point.quadratic, size, size - p)
    any_effect = hypothesis("any", np.eye(p))
    with threadpool_limits(1):
        start = perf_counter()
        for _ in range(BLOCKS):
            statistics = scanner.statistics(np.asfortranarray(variants))
            test(statistics.u, statistics.v, any_effect, context)
        a = (perf_counter() - start) / (BLOCKS * WIDTH)
        slow = theirs.get_fast_scanner()
        slow.scan(np.eye(p), variants[:, :1])
        start = perf_counter()
        for k in range(CALLS):
            slow.scan(np.eye(p), variants[:, [k]].astype(float))
        b = (perf_counter() - start) / CALLS
    print(f"glimix-core {1e3 * b:.3f} ms a variant, kron2sum {1e3 * a:.5f} ms: {b / a:.0f} times")


if __name__ == "__main__":
    main()
