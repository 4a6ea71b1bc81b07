"""A variant against glimix-core's scanner at the same null model (rank 1, r = 200, n = 1,197).

    pip install glimix-core==3.1.14; python benchmarks/against_glimix.py

glimix-core tests one variant a call; ours a block. Both have their null model fitted; only the scan is timed, in
processor time of one thread. The bare product is the rotation of the variants and nothing else, which no scanner of
this model can do without.
"""

from collections.abc import Callable, Iterator
from time import process_time

import numpy as np
from glimix_core.lmm import Kron2Sum as Theirs
from threadpoolctl import threadpool_limits

from benchmarks.processes import Row, print_table
from kron2sum_cli import Kron2Sum
from kron2sum_cli.model.block_scanner import block_scanner
from kron2sum_cli.model.hypotheses import TestContext, hypothesis, test

REPEATS, WIDTH, CALLS = 20, 1024, 20


def best_seconds(work: Callable[[], object]) -> float:
    """Processor time of the quickest of some runs, after one that warms the caches."""
    times = []
    for _ in range(REPEATS + 1):
        start = process_time()
        work()
        times.append(process_time() - start)
    return min(times[1:])


def rows() -> Iterator[Row]:
    """Our time a variant and theirs, and that of the bare product."""
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
    variants = np.asfortranarray(variants - variants.mean(axis=0))  # a variant's genotypes together, as they are read
    point = ours.point
    scanner, size = block_scanner(point, ours.covariate_basis), n * p
    context = TestContext(point.axes.T, point.quadratic, size, size - p)
    any_effect, one_by_one = hypothesis("any", np.eye(p)), variants[:, :CALLS].astype(float)

    def our_scan() -> None:
        statistics = scanner.statistics(variants)
        test(statistics.u, statistics.v, any_effect, context)

    def their_scan() -> None:
        for k in range(CALLS):
            slow.scan(np.eye(p), one_by_one[:, [k]])

    with threadpool_limits(1):
        slow = theirs.get_fast_scanner()
        a, floor = best_seconds(our_scan) / WIDTH, best_seconds(lambda: scanner.rotation @ variants) / WIDTH
        b = best_seconds(their_scan) / CALLS
    what, peer = f"a variant, n = {n:,}, r = {r}, rank 1", f"glimix-core {1e3 * b:.2f} ms"
    yield Row(what, f"{1e3 * a:.5f} ms", peer, f"1/{b / a:.0f}", "1/1000")
    yield Row("the bare product of that", f"{1e3 * floor:.5f} ms", peer, f"1/{b / floor:.0f}")


def main() -> None:
    """Print the table."""
    print_table(rows())


if __name__ == "__main__":
    main()
