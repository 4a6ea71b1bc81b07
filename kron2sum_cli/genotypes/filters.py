"""Which variants are tested: by name and position, then by what their genotypes are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from kron2sum_cli.errors import UsageError
from kron2sum_cli.genotypes.chromosomes import Region, encode_chromosomes, normalise_chromosome
from kron2sum_cli.genotypes.counts import GenotypeCounts
from kron2sum_cli.genotypes.source import Variants

EQUAL_PROBABILITIES = 1e-8
"""Relative difference up to which two probabilities count as equal, as they differ by rounding only."""


def hwe_exact(
    heterozygous: NDArray[np.int64], homozygous_1: NDArray[np.int64], homozygous_2: NDArray[np.int64]
) -> NDArray[np.float64]:
    """P values of the exact test of Hardy-Weinberg equilibrium.

    Given the allele counts, the number h of heterozygous samples has the probability ``P(h) ∝ 2^h / (h! r! c!)``, with
    r and c samples homozygous for the rarer and the commoner allele; the p value is the sum of all P(h) that are not
    above that of the observed h. From numbers (m,) of samples with each genotype, without mid-p correction; 1 where
    there is no genotype, 0 where p underflows (Wigginton, Cutler and Abecasis 2005, Am J Hum Genet 76:887, equations 1
    and 2).
    """
    rare = 2 * np.minimum(homozygous_1, homozygous_2) + heterozygous
    n = heterozygous + homozygous_1 + homozygous_2
    log_factorial = scipy.special.gammaln(np.arange(n.max(initial=0) + 1) + 1.0)
    cells = zip(heterozygous.tolist(), rare.tolist(), n.tolist(), strict=True)
    return np.array([_p_value(h, r, k, log_factorial) for h, r, k in cells])


def _p_value(heterozygous: int, rare: int, n: int, log_factorial: NDArray[np.float64]) -> float:
    """The p value of one variant, from the count of its rarer allele in n samples."""
    possible = np.arange(rare % 2, rare + 1, 2)
    homozygous = (rare - possible) // 2
    log_p = (
        possible * np.log(2.0)
        - log_factorial[possible]
        - log_factorial[homozygous]
        - log_factorial[n - possible - homozygous]
    )
    probabilities = np.exp(log_p - log_p.max())
    observed = probabilities[heterozygous // 2]
    tail = probabilities[probabilities <= observed * (1 + EQUAL_PROBABILITIES)].sum()
    return float(tail / probabilities.sum())


GENOTYPE_FILTERS = ("maf", "mac", "max_missing", "min_info", "hwe")
"""Filters on genotypes, each a bound that is an option of the same name."""

_LISTED_CHROMOSOMES = 40


@dataclass(frozen=True)
class VariantFilters:
    """Conditions on the genotypes of a variant, as options of the same name; None means that there is none.

    Genotypes that are certain have no imputation quality, and pass ``min_info``.
    """

    maf: float | None = None
    mac: float | None = None
    max_missing: float | None = None
    min_info: float | None = None
    hwe: float | None = None

    @property
    def need_hard_calls(self) -> bool:
        """Whether `genotype_counts` has to count hard calls for these filters."""
        return self.hwe is not None


def in_places(variants: Variants, chromosomes: Sequence[Sequence[str]], regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Which variants lie on one of the chromosomes, and in one of the regions, where there are some.

    Chromosomes are as `parse_chromosomes` returns them; codes are compared as `normalise_chromosome` spells them for
    this file. Raises UsageError where the file has no variant on a chromosome of ``--chr`` or ``--region`` (of a range:
    on none of its chromosomes).
    """
    kept = np.ones(len(variants), dtype=np.bool_)
    if not chromosomes and not regions:
        return kept
    codes, code_of_variant, human = encode_chromosomes(variants.table["CHR"])
    chromosomes = [[normalise_chromosome(code, human) for code in item] for item in chromosomes]
    regions = [replace(one, chromosome=normalise_chromosome(one.chromosome, human)) for one in regions]
    _refuse_unknown_chromosomes(chromosomes, regions, codes, variants.source)
    if chromosomes:
        wanted = {code for item in chromosomes for code in item}
        kept &= np.array([code in wanted for code in codes], dtype=np.bool_)[code_of_variant]
    if regions:
        kept &= _in_regions(regions, codes, code_of_variant, np.asarray(variants.table["POS"], dtype=np.int64))
    return kept


def passes(counts: GenotypeCounts, filters: VariantFilters) -> tuple[NDArray[np.bool_], Mapping[str, int]]:
    """Choose variants by their genotypes in the analysed samples.

    Hard calls are counted where ``filters.need_hard_calls``. Returns whether each variant passes (one without any
    genotype has frequency and count 0 here), and how many each option leaves out (``--max-missing``, ``--min-info``,
    ``--maf``, ``--mac``, ``--hwe``; those given only). A variant counts at the first option that leaves it out.
    """
    kept = np.ones(len(counts.n_called), dtype=np.bool_)
    dropped: dict[str, int] = {}
    if filters.max_missing is not None:
        _narrow(kept, counts.missing <= filters.max_missing, "--max-missing", dropped)
    if filters.min_info is not None:
        _narrow(kept, ~(counts.info < filters.min_info), "--min-info", dropped)
    if filters.maf is not None:
        _narrow(kept, np.nan_to_num(counts.maf) >= filters.maf, "--maf", dropped)
    if filters.mac is not None:
        _narrow(kept, counts.mac >= filters.mac, "--mac", dropped)
    if filters.hwe is not None:
        _narrow(kept, _in_equilibrium(counts, kept, filters.hwe), "--hwe", dropped)
    return kept, dropped


def _narrow(kept: NDArray[np.bool_], condition: NDArray[np.bool_], option: str, counts: dict[str, int]) -> None:
    """Leave out of ``kept`` what does not meet the condition, and count it."""
    before = int(np.count_nonzero(kept))
    kept &= condition
    counts[option] = before - int(np.count_nonzero(kept))


def _in_equilibrium(counts: GenotypeCounts, candidates: NDArray[np.bool_], smallest_p: float) -> NDArray[np.bool_]:
    assert counts.hard_calls is not None
    two_ea, one_ea, no_ea = counts.hard_calls[:, candidates]
    p = np.ones(len(candidates))
    p[candidates] = hwe_exact(one_ea, two_ea, no_ea)
    return p >= smallest_p


def _refuse_unknown_chromosomes(
    chromosomes: Sequence[Sequence[str]], regions: Sequence[Region], codes: list[str], source: str
) -> None:
    listed = ", ".join(codes[:_LISTED_CHROMOSOMES]) + (", ..." if len(codes) > _LISTED_CHROMOSOMES else "")
    for item in chromosomes:
        if not set(item) & set(codes):
            name = item[0] if len(item) == 1 else f"{item[0]} to {item[-1]}"
            raise UsageError(f"--chr {name}: {source} has no such chromosome; it has {listed}")
    for region in regions:
        if region.chromosome not in codes:
            raise UsageError(f"--region {region}: {source} has no such chromosome; it has {listed}")


def _in_regions(
    regions: Sequence[Region], codes: list[str], code_of_variant: NDArray[np.intp], pos: NDArray[np.int64]
) -> NDArray[np.bool_]:
    inside = np.zeros(len(pos), dtype=np.bool_)
    for region in regions:
        on_chromosome = code_of_variant == codes.index(region.chromosome)
        inside |= on_chromosome & (pos >= region.first) & (pos <= region.last)
    return inside
