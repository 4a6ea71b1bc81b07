"""Linkage disequilibrium between the variants of a scan, from its genotypes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import NullFile
from kron2sum_cli.files.outputs import guard_inputs
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.genotypes.chromosomes import normalise_chromosome
from kron2sum_cli.genotypes.open import open_genotype_file
from kron2sum_cli.genotypes.several_files import SeveralFiles
from kron2sum_cli.genotypes.source import GenotypeSource, Variants
from kron2sum_cli.option_values import FILES_OF_GENOTYPES

logger = logging.getLogger("kron2sum.export")

_CELLS_AT_ONCE = 1 << 22
"""Genotypes that are read at once (32 MiB as float64), whatever the number of variants near a lead."""

ANY_PLOIDY = 100
"""Copies that a table may count: r² is the same whatever a sample has."""

VARIANT_KEY = ("CHR", "POS", "SNPID", "EA", "NEA")
"""Columns that tell variants apart."""


@dataclass(frozen=True)
class GenotypeLinkage:
    """r² among the samples of a scan, which have a description for people."""

    genotypes: SeveralFiles
    samples_description: str

    @property
    def source(self) -> str:
        """The files, for messages."""
        return self.genotypes.path

    @property
    def description(self) -> str:
        """The genotypes and whose they are."""
        return f"among {self.samples_description}, with missing genotypes at the mean"

    def find(self, variants: pa.Table) -> NDArray[np.intp]:
        """Index (m,) of variants, by name, chromosome, position and pair of alleles; -1 for those that are not there.

        They have the columns of `VARIANT_KEY`.
        """
        names = pa.array(variants.column("SNPID").to_pylist(), pa.string())
        table = self.genotypes.variants.table
        near = np.flatnonzero(np.asarray(pc.is_in(table["SNPID"], value_set=names).combine_chunks()))
        known: dict[tuple[object, ...], int] = {}
        for key, index in zip(_keys(table.select(VARIANT_KEY).take(near)), near.tolist(), strict=True):
            known.setdefault(key, index)
        return np.array([known.get(key, -1) for key in _keys(variants)], dtype=np.intp)

    def r2(self, lead: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        """r² of one variant with each of the others, missing genotypes at the variant's mean.

        ``r² = (xᵀy)² / (xᵀx yᵀy)``, x and y centred; 0 for a variant that does not vary.
        """
        x = self._centred(np.array([lead]))[:, 0]
        at_once = max(1, _CELLS_AT_ONCE // len(x))
        order = np.argsort(others)
        found = np.empty(len(others))
        for start in range(0, len(others), at_once):
            block = order[start : start + at_once]
            y = self._centred(others[block])
            squares = (x @ x) * np.einsum("ij,ij->j", y, y)
            found[block] = np.divide((x @ y) ** 2, squares, out=np.zeros(len(block)), where=squares > 0)
        return found

    def _centred(self, variants: NDArray[np.intp]) -> NDArray[np.float64]:
        """Dosages (n, k) of k variants, their indices increasing, less their mean; 0 where missing."""
        dosages = self.genotypes.read(variants, np.arange(len(self.genotypes.samples))).astype(np.float64)
        missing = np.isnan(dosages)
        called = np.maximum(np.count_nonzero(~missing, axis=0), 1)
        return np.asarray(np.where(missing, 0.0, dosages - np.nansum(dosages, axis=0) / called))


def _keys(variants: pa.Table) -> list[tuple[object, ...]]:
    """What makes a variant the same one, whichever allele a format names first."""
    spelled = {code: normalise_chromosome(code) for code in variants.column("CHR").unique().to_pylist()}
    columns = (variants.column(name).to_pylist() for name in VARIANT_KEY)
    return [
        (spelled[code], position, name, frozenset(alleles))
        for code, position, name, *alleles in zip(*columns, strict=True)
    ]


def open_linkage(
    paths: Sequence[str], out: str, null: NullFile | None, files: Mapping[str, str | None] | None = None
) -> GenotypeLinkage:
    """Open the genotypes of a scan, which the output must not be, to tell linkage disequilibrium from.

    The samples are those of the null model, without it all of the first file. ``files`` belong to the genotypes, by
    their options (`option_values.FILES_OF_GENOTYPES`). Raises InputError if a file cannot be read, or lacks one of the
    samples; OutputError if the output is one of the files.
    """
    sample, bim, fam, variant_map = map((files or {}).get, FILES_OF_GENOTYPES)
    sources = tuple(
        open_genotype_file(path, sample=sample, bim=bim, fam=fam, variant_map=variant_map, ploidy=ANY_PLOIDY)
        for path in paths
    )
    for source in sources:
        guard_inputs(out, source.files)
    samples = sources[0].samples if null is None else null.samples
    rows = tuple(_rows(samples, source) for source in sources)
    variants = pa.concat_tables([source.variants.table for source in sources])
    names = ", ".join(source.path for source in sources)
    kind = "samples of the genotypes" if null is None else "analysed samples"
    genotypes = SeveralFiles(sources, rows, samples, Variants(variants, names))
    linkage = GenotypeLinkage(genotypes, f"the {len(samples):,} {kind}")
    logger.info("lead variants clumped by linkage disequilibrium %s, in %s", linkage.description, linkage.source)
    if null is None:
        logger.info("give the null model (--null) to take the analysed samples only")
    return linkage


def _rows(samples: Samples, source: GenotypeSource) -> NDArray[np.intp]:
    rows = match(samples, source.samples)
    absent = np.flatnonzero(rows < 0)
    if absent.size:
        raise InputError(
            f"{source.path}: lacks {absent.size} of the {len(samples)} samples of {samples.source}, such as"
            f" {samples.label(int(absent[0]))}; give the genotypes that were scanned"
        )
    return rows
