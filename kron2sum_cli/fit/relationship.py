"""The relationship matrix of a fit: genotypes or a matrix file."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError, counted
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.files.text import read_file_list, read_name_list
from kron2sum_cli.fit.summary import report_variants, warn_of_few_genotypes
from kron2sum_cli.genotypes.grm import (
    GrmOptions,
    left_out_together,
    relationship_from_genotypes,
    relationships_by_chromosome,
)
from kron2sum_cli.genotypes.open import SeveralFiles, is_genotype_file, open_genotypes, takes_sample_file
from kron2sum_cli.genotypes.relationship import NamedTable, RelationshipFile, open_relationship, open_sparse
from kron2sum_cli.genotypes.source import GenotypeSource, Relationship
from kron2sum_cli.genotypes.sparse_matrix import (
    SparseMatrix,
    above_cutoff,
    near_duplicates,
    of_samples,
    unrelated_samples,
    with_unlisted,
)
from kron2sum_cli.genotypes.square_matrix import tiles
from kron2sum_cli.progress import Progress
from kron2sum_cli.settings import FitSettings

logger = logging.getLogger("kron2sum.fit")

DOUBLE_UP_TO = 5000
"""Up to so many samples the products of the GRM are made in double precision; beyond in single, for half the time."""

DUPLICATE_RELATEDNESS = 0.99
"""Two samples whose relatedness is above this share of their own are reported as near-duplicates."""


@dataclass(frozen=True)
class Grm:
    """The relationship matrix that was asked for: genotypes or a matrix file, not read yet, or a sparse matrix.

    ``paths`` are the files that ``--grm`` names, which are one of ``source``, ``file`` and ``sparse``. ``extract`` are
    names of the only variants to use; None for all.
    """

    paths: tuple[str, ...]
    source: GenotypeSource | None = None
    file: RelationshipFile | None = None
    sparse: SparseMatrix | None = None
    extract: frozenset[str] | None = None

    @staticmethod
    def open(settings: FitSettings, phenotyped: Samples, with_covariates: Samples | None) -> "Grm":
        """Open what ``--grm`` names; samples with phenotypes that a table of pairs does not list are unrelated to all.

        Those that it lists without a phenotype are kept to be predicted; family IDs are those of the other tables.
        Raises InputError, UsageError where it is no relationship matrix, or one that the options do not go with.
        """
        if settings.independent:
            return Grm((), sparse=unrelated_samples(phenotyped))
        paths = (*settings.grm, *(read_file_list(settings.grm_list) if settings.grm_list is not None else ()))
        path = paths[0]
        if is_genotype_file(path) or settings.map is not None:
            if settings.grm_id is not None and not takes_sample_file(path):
                raise UsageError(f"{path} has names of its own: leave out --grm-id {settings.grm_id}")
            source = open_genotypes(paths, sample=settings.grm_id, variant_map=settings.map, ploidy=settings.ploidy)
            sources = source.sources if isinstance(source, SeveralFiles) else (source,)
            extract = frozenset(read_name_list(settings.grm_extract)) if settings.grm_extract else None
            return Grm(tuple(one.path for one in sources), source, extract=extract)
        if len(paths) > 1:
            raise UsageError(
                f"--grm {', '.join(paths)}: only genotypes may lie in several files; give one relationship matrix"
            )
        if settings.loco:
            raise InputError(
                f"{path}: --loco needs the genotypes that the matrix is made of; give --grm a .bed, .pgen, .bgen or "
                "VCF, or a table of genotypes and --map its chromosomes"
            )
        if settings.options_of_genotypes:
            raise UsageError(
                f"{path}: is a relationship matrix, and {', '.join(settings.options_of_genotypes)} are for genotypes"
                " that one is made of; leave them out"
            )
        sparse = open_sparse(path, settings.grm_id)
        if sparse is not None:
            return Grm(paths, sparse=with_unlisted(sparse, phenotyped, settings.predict, with_covariates))
        return Grm(paths, file=open_relationship(path, settings.grm_id))

    @property
    def samples(self) -> Samples:
        """All samples of the matrix."""
        return self._one.samples

    @property
    def files(self) -> Sequence[str]:
        """Every file that it is made of."""
        return self._one.files

    def falls_into_families(self, settings: FitSettings) -> bool:
        """Whether the matrix stays sparse and is decomposed family by family, so that nothing of size n × n is made."""
        return self.sparse is not None or settings.grm_cutoff is not None

    def largest_rank(self, n: int) -> int:
        """Upper bound on the rank of the matrix of n samples, as known before it is read."""
        if self.source is not None:
            nvariants = len(self.source.variants)
            return min(n, nvariants if self.extract is None else min(nvariants, len(self.extract)))
        stored = self.file.stored if self.file is not None else None
        return min(n, len(stored.names)) if isinstance(stored, NamedTable) and not stored.square else n

    @property
    def left_out_with(self) -> dict[str, str]:
        """With LOCO, for every chromosome that is left out together with another one the code of that one."""
        assert self.source is not None
        first = left_out_together(self.source.variants.table["CHR"])
        return {code: other for code, other in first.items() if code != other}

    @property
    def _one(self) -> GenotypeSource | RelationshipFile | SparseMatrix:
        one = self.source or self.file or self.sparse
        assert one is not None
        return one

    def relationships(
        self, settings: FitSettings, rows: NDArray[np.intp], progress: Progress
    ) -> Iterator[tuple[str | None, Relationship]]:
        """The whole matrix (None) of some samples, then with LOCO that without each chromosome."""
        for chromosome, relationship in self._read(settings, rows, progress):
            if settings.grm_cutoff is not None:
                relationship = above_cutoff(relationship, settings.grm_cutoff)
            yield chromosome, relationship
            del relationship  # else it would be in memory while the next is made

    def _read(
        self, settings: FitSettings, rows: NDArray[np.intp], progress: Progress
    ) -> Iterator[tuple[str | None, Relationship]]:
        if self.sparse is not None:
            counts = {"samples read": len(self.sparse.samples)}
            samples = self.sparse.samples.take(rows)
            K = of_samples(self.sparse, rows)
            yield None, Relationship(samples, None, None, counts, self.sparse.files, K)
            return
        if self.file is not None:
            yield None, self.file.load(rows)
            return
        assert self.source is not None
        options = GrmOptions(
            scale=settings.grm_scale,
            min_maf=settings.grm_maf,
            max_missing=settings.grm_geno,
            extract=self.extract,
            precision="double" if len(rows) <= DOUBLE_UP_TO else "single",
            threads=settings.common.threads,
        )
        with progress.task("Reading the GRM's genotypes", len(self.source.variants), "variants") as advance:
            if not settings.loco:
                yield None, relationship_from_genotypes(self.source, rows, options, advance)
                return
            _report_left_out_together(self.left_out_with)
            yield from relationships_by_chromosome(self.source, rows, options, advance)


def _report_left_out_together(left_out_with: Mapping[str, str]) -> None:
    """Name the contigs that are left out together."""
    if not left_out_with:
        return
    groups: dict[str, list[str]] = {}
    for code, first in left_out_with.items():
        groups.setdefault(first, [first]).append(code)
    logger.warning(
        "--loco: %d chromosomes with less than a fiftieth of the variants are left out in %d groups, such as %s",
        sum(map(len, groups.values())),
        len(groups),
        _shown(next(iter(groups.values()))),
    )
    for codes in groups.values():
        logger.debug("left out together: %s", ", ".join(codes))


def _shown(codes: Sequence[str]) -> str:
    return ", ".join(codes[:3]) + (f" and {len(codes) - 3} others" if len(codes) > 3 else "")


def _near_duplicates(K: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of rows of K (n, n) that are related as one individual to itself."""
    root = np.sqrt(np.maximum(K.diagonal(), 1e-300))
    pairs = []
    for rows in tiles(len(K)):
        close = K[rows, : rows.stop] > DUPLICATE_RELATEDNESS * np.multiply.outer(root[rows], root[: rows.stop])
        i, j = np.nonzero(np.tril(close, rows.start - 1))
        pairs += list(zip(j.tolist(), (i + rows.start).tolist(), strict=True))
    return pairs


def report_relationship(relationship: Relationship, analysed: Samples) -> None:
    """Say what the matrix was made of, and which of the samples (n, those of its rows) are near-duplicates."""
    report_variants(relationship.counts)
    G, K, sparse = relationship.G, relationship.K, relationship.sparse
    pairs = []
    if G is not None:
        warn_of_few_genotypes(np.asarray(np.einsum("ij,ij->i", G, G)), analysed)
    elif K is not None:
        warn_of_few_genotypes(np.diag(K), analysed)
        pairs = _near_duplicates(K)
    elif sparse is not None:
        warn_of_few_genotypes(sparse.diagonal(), analysed)
        pairs = near_duplicates(sparse, DUPLICATE_RELATEDNESS)
    if pairs:
        j, i = pairs[0]
        logger.warning(
            "near-duplicates by their relatedness: %s (such as %s and %s); if they are one individual measured twice,"
            " remove one of each pair with --remove",
            counted(len(pairs), "pairs of samples"),
            analysed.label(j),
            analysed.label(i),
        )
