"""Loci of significant variants: which belong to which lead variant, by distance or by linkage disequilibrium."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kron2sum_cli.reports.scan_view import Array

WINDOW = 500_000
"""Variants farther than so many bases from a lead variant do not belong to it."""

R2 = 0.1
"""With genotypes, neither do those whose r² with it is smaller."""


class Linkage(Protocol):
    """Linkage disequilibrium between variants of a result table."""

    @property
    def description(self) -> str:
        """The genotypes and whose they are, for people."""

    @property
    def source(self) -> str:
        """The genotype files, for messages."""

    def places(self, variants: pa.Table) -> NDArray[np.intp]:
        """Where variants (columns CHR, POS, SNPID, EA, NEA) are in the genotypes; -1 for those that are not there."""

    def r2(self, lead: int, others: NDArray[np.intp]) -> Array:
        """r² of one variant with each of the others, all by their place."""


@dataclass(frozen=True)
class Clumping:
    """Which variants belong to a lead variant.

    Attributes
    ----------
    window : those no more than so many bases from it,
    r2 : and, where `linkage` is known, with at least this r²
    linkage : None for distance alone
    """

    window: int = WINDOW
    r2: float = R2
    linkage: Linkage | None = None

    @property
    def said(self) -> str:
        """How, in a sentence that follows "lead variants:"."""
        window = f"{self.window / 1000:g} kb"
        if self.linkage is None:
            return f"clumped by distance: a lead variant is the strongest within {window}"
        return (
            f"clumped by linkage disequilibrium: a lead variant takes all within {window} whose r² with it is"
            f" {self.r2:g} or more, {self.linkage.description}"
        )


@dataclass(frozen=True)
class Clumps:
    """Loci, the strongest first.

    Attributes
    ----------
    leads : (k,) the lead variant of each
    sizes : (k,) how many variants belong to each, the lead among them
    """

    leads: NDArray[np.intp]
    sizes: NDArray[np.intp]


def clump(
    codes: NDArray[np.intp],
    positions: NDArray[np.int64],
    scores: Array,
    window: int,
    linked: Callable[[int, NDArray[np.intp]], NDArray[np.bool_]] | None = None,
    most: int | None = None,
) -> Clumps:
    """Loci of variants: the strongest takes those within `window` bases that are linked to it, and so on.

    Parameters
    ----------
    codes, positions, scores : (m,) chromosome, position and strength of each variant; of equally strong ones the
        first leads
    window : largest distance to the lead, on either side
    linked : which of some variants are linked to a lead; asked once a lead, for those near it that none has taken;
        None where all are
    most : find the strongest so many loci only; None for all

    Returns
    -------
    Indices into the m variants. A variant that could belong to two leads belongs to the stronger one.
    """
    along = np.lexsort((positions, codes))
    starts = np.searchsorted(codes[along], np.arange(codes.max(initial=-1) + 2))
    placed = positions[along]
    free = np.ones(len(codes), dtype=np.bool_)
    leads: list[int] = []
    sizes: list[int] = []
    for variant in np.argsort(-scores, kind="stable").tolist():
        if not free[variant]:
            continue
        if len(leads) == most:
            break
        free[variant] = False
        first, last = starts[codes[variant]], starts[codes[variant] + 1]
        edges = (positions[variant] - window, positions[variant] + window + 1)
        low, high = first + np.searchsorted(placed[first:last], edges)
        members = along[low:high][free[along[low:high]]]
        if linked is not None and members.size:
            members = members[linked(variant, members)]
        free[members] = False
        leads.append(variant)
        sizes.append(1 + len(members))
    return Clumps(np.array(leads, dtype=np.intp), np.array(sizes, dtype=np.intp))
