"""The genetic relationship of samples from their genotypes, GCTA's and GEMMA's way, of all or without a chromosome."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.genotypes.counts import GenotypeCounts, genotype_counts
from kron2sum_cli.genotypes.source import GenotypeSource, Relationship
from kron2sum_cli.genotypes.square_matrix import add_outer_product, mirror_lower
from kron2sum_cli.progress import Advance

Scale = Literal["standardized", "centered"]
Precision = Literal["single", "double"]

MOST_VARIANTS_IN_BLOCK = 1024
"""Longer sums in single precision would lose digits."""


@dataclass(frozen=True)
class GrmOptions:
    """How a relationship matrix is made from genotypes.

    Frequencies and missing genotypes are those of all samples of the file.

    - ``scale``: whether centred genotypes are divided by their standard deviation.
    - ``min_maf``: smallest frequency of the rarer allele.
    - ``max_missing``: largest share of missing genotypes.
    - ``extract``: names of the only variants to use; None for all.
    - ``block_mib``: size of a block of genotypes in memory, in MiB.
    - ``precision``: of the products of blocks, whose sums are always in double precision. Single precision takes half
      the time and leaves an error of some 1e-7 in K.
    - ``threads``: how many multiply at once. BLAS should have one for each, since its own wait for each other.
    """

    scale: Scale = "standardized"
    min_maf: float = 0.01
    max_missing: float = 0.05
    extract: frozenset[str] | None = None
    block_mib: float = 64.0
    precision: Precision = "single"
    threads: int = 1

    def block_size(self, n_samples: int) -> int:
        """How many variants of so many samples are read at once."""
        return int(np.clip(self.block_mib * 2**20 / (4 * n_samples), 1, MOST_VARIANTS_IN_BLOCK))


NOT_LISTED = "left out: not in the list"

_REMEDIES = {
    NOT_LISTED: "check the names of --grm-extract",
    "left out: missing": "--grm-geno keeps variants with more missing genotypes",
    "left out: one allele": "check the genotypes, which do not vary",
    "left out: rare": "--grm-maf keeps rarer variants",
}
"""What would bring variants back, by why they were left out."""


@dataclass(frozen=True)
class GrmVariants:
    """Variants that the relationship is made of, with what turns a dosage g into ``(g - mean) * weight``.

    Of r variants, at increasing positions in the file: mean dosages over all samples of the file, and weights
    ``1 / sqrt(2 f (1 - f))`` with f = mean / 2, or 1 where genotypes are centred only.
    """

    positions: NDArray[np.intp]
    means: NDArray[np.float64]
    weights: NDArray[np.float64]

    def take(self, which: NDArray[np.bool_] | slice) -> "GrmVariants":
        """Some of them."""
        return GrmVariants(self.positions[which], self.means[which], self.weights[which])


@dataclass(frozen=True)
class GrmSums:
    """What one pass over the genotypes gives, before the division by the number r of variants.

    There is G (n, r) where r < n, else K = GGᵀ (n, n). The counts are variants read, left out with the reason, and
    used.
    """

    variants: GrmVariants
    G: NDArray[np.float64] | None
    K: NDArray[np.float64] | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class _Block:
    """Kept variants of one part of the file, their dosages (n, b), and how many were left out."""

    variants: GrmVariants
    dosages: NDArray[np.float32]
    left_out: Mapping[str, int]


def relationship_from_genotypes(
    source: GenotypeSource, rows: NDArray[np.intp], options: GrmOptions, advance: Advance | None = None
) -> Relationship:
    """The relationship matrix GGᵀ of some samples of a genotype file.

    ``G_ij = (g_ij - 2 f_j) / sqrt(2 f_j (1 - f_j)) / sqrt(r)``, without the first root where genotypes are only
    centred. The frequencies f, the centring and the filters use all samples of the file, as plink2, GCTA and GEMMA do;
    a missing genotype is put to the mean, that is to 0 in G. r is the number of variants kept: those that the options
    allow, with more than one allele. No chromosome is treated apart.

    ``rows`` (n,) are positions of the analysed samples in the file; ``advance`` is told of the variants read, after
    each block. Returns G (n, r) where r < n, else K (n, n). Beside it, at most half the size of K and three blocks are
    in memory. Raises InputError where no variant is left. As Yang et al. (2011), Am J Hum Genet 88:76, equation 3,
    without its correction of the diagonal.
    """
    return relationship_of(source, rows, sum_genotypes(source, rows, options, advance))


def relationship_of(source: GenotypeSource, rows: NDArray[np.intp], sums: GrmSums) -> Relationship:
    """Divide by the number of variants, in the arrays of ``sums`` themselves."""
    r = len(sums.variants.positions)
    if sums.G is not None:
        np.divide(sums.G, np.sqrt(r), out=sums.G)
    if sums.K is not None:
        np.divide(sums.K, r, out=sums.K)
    return Relationship(source.samples.take(rows), sums.G, sums.K, sums.counts, tuple(source.files))


def sum_genotypes(
    source: GenotypeSource, rows: NDArray[np.intp], options: GrmOptions, advance: Advance | None
) -> GrmSums:
    """Read all genotypes once; blocks are kept until it is known whether r < n."""
    candidates = np.arange(len(source.variants))
    counts = {"variants read": len(source.variants)}
    if options.extract is not None:
        candidates = np.flatnonzero(source.variants.named(options.extract))
        counts[NOT_LISTED] = len(source.variants) - len(candidates)
    variants: list[GrmVariants] = []
    waiting: list[_Block] = []
    n_kept, K = 0, None
    for block in _blocks(source, rows, candidates, options, advance):
        variants.append(block.variants)
        n_kept += len(block.variants.positions)
        for reason, number in block.left_out.items():
            counts[reason] = counts.get(reason, 0) + number
        waiting.append(block)
        if n_kept >= len(rows):
            K = np.zeros((len(rows), len(rows))) if K is None else K
            while waiting:
                earliest = waiting.pop(0)
                _add_product(K, earliest.variants, earliest.dosages, options)
    counts["variants used"] = n_kept
    if not n_kept:
        others = {reason: counts.get(reason, 0) for reason in _REMEDIES if reason != NOT_LISTED}
        worst = max(others, key=lambda reason: others[reason]) if any(others.values()) else NOT_LISTED
        listed = ", ".join(f"{reason} {number}" for reason, number in counts.items())
        raise InputError(
            f"{source.path}: no variant is left for the relationship matrix ({listed}); {_REMEDIES[worst]}"
        )
    if K is not None:
        mirror_lower(K)
    G = _join(waiting, len(rows), n_kept) if K is None else None
    return GrmSums(_concatenate(variants), G, K, counts)


def _add_product(
    K: NDArray[np.float64], variants: GrmVariants, dosages: NDArray[np.float32], options: GrmOptions
) -> None:
    """Add the product of a block, whose dosages it may overwrite, to the lower triangle of K."""
    x = dosages if options.precision == "single" else dosages.astype(np.float64)
    x -= variants.means.astype(x.dtype)
    x *= variants.weights.astype(x.dtype)
    np.copyto(x, 0, where=np.isnan(x))
    add_outer_product(K, x, options.threads)


def _blocks(
    source: GenotypeSource,
    rows: NDArray[np.intp],
    candidates: NDArray[np.intp],
    options: GrmOptions,
    advance: Advance | None,
) -> Iterator[_Block]:
    """The kept variants among the candidates, with the dosages of the analysed samples."""
    everybody = np.arange(len(source.samples))
    size = options.block_size(len(everybody))
    for start in range(0, len(candidates), size):
        positions = candidates[start : start + size]
        dosages = source.read(positions, everybody)
        counts = genotype_counts(dosages, ploidy=source.ploidy)
        kept, left_out = _choose(counts, options)
        by_variant = dosages.T if kept.all() else dosages.T[kept]
        if not np.array_equal(rows, everybody):
            by_variant = by_variant.take(rows, axis=1)
        f = counts.eaf[kept]
        variances = source.ploidy * f * (1 - f)
        weights = 1 / np.sqrt(variances) if options.scale == "standardized" else np.ones(len(f))
        yield _Block(GrmVariants(positions[kept], counts.mean[kept], weights), by_variant.T, left_out)
        if advance is not None:
            advance(len(positions))


def _choose(counts: GenotypeCounts, options: GrmOptions) -> tuple[NDArray[np.bool_], Mapping[str, int]]:
    """Which variants are used, and how many are left out for each reason."""
    complete = counts.missing <= options.max_missing
    variable = complete & (counts.mac > 0)
    common = variable & (np.nan_to_num(counts.maf) >= options.min_maf)
    n_left = [len(complete), *(int(np.count_nonzero(kept)) for kept in (complete, variable, common))]
    reasons = ("left out: missing", "left out: one allele", "left out: rare")
    return common, dict(zip(reasons, (-np.diff(n_left)).tolist(), strict=True))


def _join(blocks: list[_Block], n: int, r: int) -> NDArray[np.float64]:
    """G before the division by sqrt(r), in double precision, from blocks that are given up one by one."""
    G = np.empty((n, r), order="F")
    start = 0
    while blocks:
        block = blocks.pop(0)
        stop = start + len(block.variants.positions)
        G[:, start:stop] = (block.dosages - block.variants.means) * block.variants.weights
        start = stop
    np.copyto(G, 0, where=np.isnan(G))
    return G


def _concatenate(parts: list[GrmVariants]) -> GrmVariants:
    return GrmVariants(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


MOST_ALONE = 50
"""Up to so many chromosomes each is left out alone."""

SMALL_SHARE = 1 / 50
"""Of more chromosomes those with less than this share of the variants are left out together, up to this share."""


def left_out_together(column: pa.ChunkedArray) -> dict[str, str]:
    """For every chromosome code of a column ``CHR`` the first of those that are left out with it, or itself.

    Hundreds of contigs would make as many matrices and null models, which hardly differ. So of more than `MOST_ALONE`
    those with few variants are left out together with their neighbours in the file.
    """
    codes, code_of_variant, _ = encode_chromosomes(column)
    if len(codes) <= MOST_ALONE:
        return {code: code for code in codes}
    few = SMALL_SHARE * len(code_of_variant)
    first: dict[str, str] = {}
    together, number = "", 0
    for code, count in zip(codes, np.bincount(code_of_variant, minlength=len(codes)).tolist(), strict=True):
        if count >= few:
            first[code], together = code, ""
            continue
        if not together or number >= few:
            together, number = code, 0
        first[code] = together
        number += count
    return first


def relationships_by_chromosome(
    source: GenotypeSource, rows: NDArray[np.intp], options: GrmOptions, advance: Advance | None = None
) -> Iterator[tuple[str | None, Relationship]]:
    """The matrix of all variants, then for every chromosome the one without it, each when asked for.

    With K the sum over all r variants and K_c that over the m of chromosome c, before any division:
    ``(K - K_c) / (r - m)``. The genotypes are read once where r < n, else twice. The iterator holds K and makes the
    next matrix beside it: a caller that drops one before it asks for the next (and may overwrite it) never has more
    than two in memory. Arguments are those of `relationship_from_genotypes`. Yields its code as `normalise_chromosome`
    spells it, the first one's of several (see `left_out_together`), in the order of the file, None for the matrix of
    all variants, which comes first; and the matrix. All are G where r < n, all are K otherwise. Raises InputError where
    no variant is left, or all lie on one chromosome.
    """
    sums = sum_genotypes(source, rows, options, advance)
    chromosomes = source.variants.table["CHR"]
    codes, code_of_variant, _ = encode_chromosomes(chromosomes)
    first = left_out_together(chromosomes)
    groups = list(dict.fromkeys(first.values()))
    group_of_code = np.array([groups.index(first[code]) for code in codes], dtype=np.intp)
    group_of_variant = group_of_code[code_of_variant[sums.variants.positions]]
    there = np.unique(group_of_variant).tolist()
    if len(there) == 1:
        raise InputError(
            f"{source.path}: all {len(group_of_variant)} variants of the relationship matrix lie on "
            f"chromosome {groups[there[0]]}, so none would be left without it; leave one chromosome out only of more"
        )
    whole = replace(sums, G=_copy(sums.G), K=_copy(sums.K))
    yield None, relationship_of(source, rows, whole)
    del whole
    for number in there:
        left_out = group_of_variant == number
        rest = _without(source, rows, sums, left_out, options)
        yield groups[number], relationship_of(source, rows, rest)
        del rest


def _without(
    source: GenotypeSource, rows: NDArray[np.intp], sums: GrmSums, left_out: NDArray[np.bool_], options: GrmOptions
) -> GrmSums:
    """The sums over the variants that are not left out."""
    variants = sums.variants.take(~left_out)
    counts = dict(sums.counts) | {
        "left out: on the chromosome": int(np.count_nonzero(left_out)),
        "variants used": len(variants.positions),
    }
    G = None if sums.G is None else sums.G[:, ~left_out]
    K = None
    if sums.K is not None:
        K = np.zeros_like(sums.K)
        gone, size = sums.variants.take(left_out), options.block_size(len(rows))
        for start in range(0, len(gone.positions), size):
            part = gone.take(slice(start, start + size))
            _add_product(K, part, source.read(part.positions, rows), options)
        mirror_lower(K)
        np.subtract(sums.K, K, out=K)
    return GrmSums(variants, G, K, counts)


def _copy(array: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if array is None else array.copy()
