"""What a scan costs: operations and bytes a variant, and times predicted from a machine's speed.

    python benchmarks/cost_model.py

For n samples, k = rank of the rotation (n - c with a full GRM), p traits: the rotation takes ``2 n (k + p)`` operations
in single precision, the information ``2 k (p + 1)`` and the squares k; reading takes n/4 bytes of the file and about
six passes over n numbers of 4 bytes (decode, count, centre). Covariates cost nothing a variant with a full GRM,
because the rotation leaves them out; with a thin one (k < n - c) their ``2nc`` and one more pass over n.
"""

from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

CASES = ((10_000, 9_999, 2, 1), (10_000, 9_999, 50, 10), (100_000, 5_000, 2, 1), (100_000, 5_000, 50, 10))
CORES = (2, 16, 64)
VARIANTS = 10**7
PASSES = 6


def operations(n: int, k: int, p: int, c: int) -> float:
    """Floating-point operations a variant."""
    thin = k < n - c
    return 2 * n * (k + p) + 2 * k * (p + 1) + k + (2 * n * c + 2 * n if thin else 0)


def moved(n: int, k: int) -> float:
    """Bytes a variant that pass through memory besides the matrix product."""
    return n / 4 + 4 * (PASSES * n + 3 * k)


def speed_of_one_core(n: int = 2000) -> tuple[float, float]:
    """Operations a second of a single-precision product, bytes a second of a pass, on one core."""
    rng = np.random.default_rng(0)
    V = rng.random((n, n), dtype=np.float32)
    G = np.asfortranarray(rng.random((n, 1024), dtype=np.float32))
    with threadpool_limits(1):
        V @ G
        start = perf_counter()
        for _ in range(3):
            V @ G
        flops = 3 * 2 * n * n * 1024 / (perf_counter() - start)
    big = rng.random(20_000_000, dtype=np.float32)
    start = perf_counter()
    big -= np.float32(0.5)
    return flops, 4 * big.size / (perf_counter() - start)


def seconds_a_variant(n: int, k: int, p: int, c: int, flops: float, bandwidth: float) -> float:
    """Predicted time a variant on one core."""
    return operations(n, k, p, c) / flops + moved(n, k) / bandwidth


def main() -> None:
    """Print the speed of this machine and the predictions."""
    flops, bandwidth = speed_of_one_core()
    print(f"one core: {flops / 1e9:.0f} Gflop/s in single precision, {bandwidth / 1e9:.1f} GB/s a pass")
    print("      n      k   p   c  ms a variant and core   hours for 10^7 variants on " + ", ".join(map(str, CORES)))
    for n, k, p, c in CASES:
        one = seconds_a_variant(n, k, p, c, flops, bandwidth)
        hours = "  ".join(f"{one * VARIANTS / cores / 3600:8.1f}" for cores in CORES)
        print(f"{n:>7} {k:>6} {p:>3} {c:>3}  {1e3 * one:12.2f}                {hours}")


if __name__ == "__main__":
    main()
