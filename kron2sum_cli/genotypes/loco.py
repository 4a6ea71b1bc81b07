"""Relationship matrices that leave one chromosome out, or several small contigs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.genotypes.grm import GrmOptions, GrmSums, add_variants, relationship_of, sum_genotypes
from kron2sum_cli.genotypes.source import GenotypeSource, Relationship
from kron2sum_cli.genotypes.square_matrix import mirror_lower
from kron2sum_cli.progress import Advance

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
    ``(K - K_c) / (r - m)``. The genotypes are read once where r < n, else twice. The iterator holds K and
    makes the next matrix beside it: a caller that drops one before it asks for the next (and may overwrite
    it) never has more than two in memory. Arguments are those of `relationship_from_genotypes`.

    Yields
    ------
    chromosome : str or None
        Its code as `normalise_chromosome` spells it, the first one's of several (see `left_out_together`), in the order
        of the file; None for the matrix of all variants, which comes first.
    relationship : Relationship
        Over the analysed samples. All are G where r < n, all are K otherwise.

    Raises
    ------
    InputError
        No variant is left, or all lie on one chromosome.
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
    source: GenotypeSource,
    rows: NDArray[np.intp],
    sums: GrmSums,
    left_out: NDArray[np.bool_],
    options: GrmOptions,
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
        add_variants(K, source, rows, sums.variants.take(left_out), options)
        mirror_lower(K)
        np.subtract(sums.K, K, out=K)
    return GrmSums(variants, G, K, counts)


def _copy(array: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if array is None else array.copy()
