"""Genotypes of any format, told from the content of the file, in one file or in several.

What is the same for all formats
--------------------------------
Dosages count the effect allele ``EA``, 0 to 2, and ``EAF`` is their mean over 2:

========================  ==================================  ======================
format                    EA                                  NEA
========================  ==================================  ======================
PLINK 1 ``.bed``          first allele of the ``.bim``        second allele
PLINK 2 ``.pgen``         ALT of the ``.pvar``                REF
BGEN 1.2, 1.3             first allele of the variant         second allele
VCF, BCF                  ALT                                 REF
HapMap                    second of the column ``alleles``    first
BIMBAM mean genotypes     first allele                        second allele
other tables              ``EA``, ``A1`` or ``ALT``           ``NEA``, ``A2``, ``REF``
========================  ==================================  ======================

plink2 writes ALT first in a ``.bim`` and, unless told ``ref-first``, in BGEN, so that its conversions keep EA.
In a BGEN file that has the reference first (UK Biobank's) EA is the reference allele. A swap of the alleles
turns the signs of effects and EAF to 1 - EAF, and no test statistic.

Sex chromosomes
---------------
No sample's sex is looked at, and no chromosome is treated apart: genotypes are tested as they are stored.

- X: plink and plink2 store a man's one X as 0 or 2 copies, so that an effect is per copy in women and half the
  difference between the two kinds of men, as for plink2 ``--glm`` (``--xchr-model 2``, its default). plink2 adds
  sex as a covariate on X; here, give it among the covariates.
- Y and MT: stored as 0 or 2 too. plink2 ``--glm`` counts 0 and 1 there: its effects and standard errors are twice
  ours, and the p values the same.
- BGEN stores the probability of one haploid copy, VCF one allele: doubled here, so that all formats give the same. A
  sample with ploidy 0 (a woman on Y, as plink2 writes it) is missing.
- A heterozygous haploid call counts 1, as it is stored; ``plink2 --set-hh-missing --make-pgen`` removes such calls.
- ``EAF``, the counts of ``--mac`` and the Hardy-Weinberg test of ``--hwe`` take haploid genotypes for two copies;
  test X for equilibrium in women only, with plink2 before.
- The relationship matrix uses all variants of its file; ``plink2 --autosome --make-pgen`` makes one without X, Y
  and MT.
"""

import gzip
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, UsageError, counted
from kron2sum_cli.files.inputs import GZIP_MAGIC, display_name, open_input
from kron2sum_cli.files.samples import Samples, match
from kron2sum_cli.genotypes.chromosomes import encode_chromosomes
from kron2sum_cli.genotypes.founders import open_founders
from kron2sum_cli.genotypes.genotype_table import is_no_matrix, open_table, table_layout
from kron2sum_cli.genotypes.source import (
    BGEN,
    BGEN_AT,
    PLINK,
    SAMPLE_MAJOR,
    VARIANT_MAJOR,
    GenotypeSource,
    Variants,
    require_positions,
)

GENOTYPE_SUFFIXES = (".bed", ".pgen", ".bgen", ".vcf", ".vcf.gz", ".bcf")
"""What the names of genotype files end with; elsewhere a format is called by its suffix."""

_VCF_STARTS = (b"##fileformat=VCF", b"BCF\x02")
"""First bytes of VCF and BCF, uncompressed."""

_MATRIX_SUFFIXES = (".grm.bin", ".rel", ".rel.bin")

_REMEDIES = {
    ".ped": "convert it with: plink2 --pedmap STEM --make-bed --out STEM",
    ".tped": "convert it with: plink1.9 --tfile STEM --make-bed --out STEM",
    ".gen": "convert it with: plink2 --gen FILE ref-first --sample STEM.sample --make-pgen --out STEM",
    ".haps": "convert it with: plink2 --haps FILE ref-first --sample STEM.sample --make-pgen --out STEM",
    ".gds": "convert it in R with: SeqArray::seqGDS2VCF('FILE', 'STEM.vcf.gz')",
}
"""What to do with files of formats that are not read."""

logger = logging.getLogger("kron2sum.genotypes")

ROUNDING = np.float32(1e-6)
"""Difference from a whole number that comes from rounding a dosage in single precision."""


def open_genotypes(
    paths: Sequence[str],
    *,
    sample: str | None = None,
    bim: str | None = None,
    fam: str | None = None,
    variant_map: str | None = None,
    ploidy: int = 2,
    founders: bool = False,
) -> GenotypeSource:
    """Open genotype files of any format, which are one data set: the variants of each file after those before it.

    Files of samples and variants belong to all of the genotypes, as for `open_genotype_file`.

    Every sample has as many copies of a chromosome as the ploidy, to which dosages count from 0. ``founders`` says
    whether they are tables of founder probabilities (see `founders.open_founders`). Raises InputError where a file
    cannot be read, or lacks a sample of another (see `open_genotype_file` and `join_files`); UsageError where a file of
    samples or variants is given, and does not belong to the genotypes.
    """
    sources: list[GenotypeSource] = []
    for path in paths:
        sources.append(
            open_founder_file(path, variant_map)
            if founders
            else open_genotype_file(path, sample=sample, bim=bim, fam=fam, variant_map=variant_map, ploidy=ploidy)
        )
    return sources[0] if len(sources) == 1 and ploidy == 2 else join_files(sources, ploidy)


def open_founder_file(path: str, variant_map: str | None = None) -> GenotypeSource:
    """Open a table of founder probabilities.

    Raises InputError where it cannot be read, or is not such a table; UsageError where it is of a format of genotypes.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file; check the path")
    if (format_ := _format(path)) is not None:
        raise UsageError(f"--founders is for tables of founder probabilities, and {path} is a {format_}; leave it out")
    return open_founders(path, variant_map)


def open_genotype_file(
    path: str,
    *,
    sample: str | None = None,
    bim: str | None = None,
    fam: str | None = None,
    variant_map: str | None = None,
    ploidy: int = 2,
) -> GenotypeSource:
    """Open a genotype file of any format.

    - ``path``: a ``.bed``, ``.pgen``, BGEN, VCF or BCF file, or a table of genotypes, told from its first bytes
      whatever its name; the name without suffix, where one such file exists, as for plink2; or ``-`` for VCF or BCF
      from standard input.
    - ``sample``: the samples of a BGEN file, where they are not beside it under the same name, or of BIMBAM's mean
      genotypes.
    - ``bim``, ``fam``: the variants and samples of a PLINK 1 file, where they are not beside it under the same name.
    - ``variant_map``: where the variants of a table lie, as far as it does not say it itself.
    - ``ploidy``: the largest number in the cells of a table; dosages are 0 to 2 here whatever it is.

    The table above has its effect allele. Raises InputError where there is no such file, it is of another format, or it
    (or a file that belongs to it) is malformed; or the package that reads the format is not installed; UsageError where
    more than one genotype file has this name without suffix, or a file of samples or variants is given that does not
    belong to this format.
    """
    file = display_name(path)
    format_: str | None = ".vcf"
    if path != "-":
        file = path if os.path.isfile(path) else _with_suffix(path)
        format_ = _format(file) or ("table" if table_layout(file) is not None else None)
    if format_ is None:
        raise InputError(f"{file} is not a genotype file; {_remedy(file)}")
    for option, value, belongs_to in (
        ("sample", sample, (".bgen", "table")),
        ("bim", bim, (".bed",)),
        ("fam", fam, (".bed",)),
        ("map", variant_map, ("table",)),
    ):
        if value is not None and format_ not in belongs_to:
            kinds = " or a ".join(belongs_to)
            raise UsageError(f"--{option} {value} belongs to a {kinds}, and {file} is a {format_}; leave it out")
    if format_ == ".bed":
        from kron2sum_cli.genotypes.bed import open_bed

        return open_bed(file, bim, fam)
    if format_ == ".bgen":
        from kron2sum_cli.genotypes.bgen import open_bgen

        return open_bgen(file, sample)
    if format_ == ".pgen":
        from kron2sum_cli.genotypes.pgen import open_pgen

        return open_pgen(file)
    if format_ == ".vcf":
        from kron2sum_cli.genotypes.vcf import open_vcf

        return _open_standard_input() if path == "-" else open_vcf(file)
    return open_table(file, sample, variant_map, ploidy)


def _open_standard_input() -> GenotypeSource:
    """VCF or BCF from standard input; no other format is read from its start to its end and needs no other file."""
    from kron2sum_cli.genotypes.vcf import open_vcf

    name = display_name("-")
    with open_input("-") as source, tempfile.NamedTemporaryFile(prefix="kron2sum-") as file:
        try:
            shutil.copyfileobj(source, file)
            file.flush()
        except OSError as error:
            raise InputError(
                f"{name} does not fit into {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a folder with more"
                " room"
            ) from None
        if _format(file.name) != ".vcf":
            raise InputError(f"{name} is no VCF or BCF, and other genotypes are read from files only; give a path")
        return open_vcf(file.name, name)


def takes_sample_file(path: str) -> bool:
    """Whether the samples of genotypes may be in a file given by name: those of BGEN and of BIMBAM's tables."""
    format_ = _format(path)
    return format_ == ".bgen" or (format_ is None and table_layout(path) == "BIMBAM")


def is_genotype_file(path: str) -> bool:
    """Whether `open_genotypes` is what a path means (and not a relationship matrix).

    True for a file that has the first bytes of a genotype format or the suffix of one, whether it exists or
    not, and for tables that can be no matrix: HapMap, BIMBAM, and those with variants in rows. A name without
    suffix means the relationship matrix made from the genotypes (``.grm.bin``, ``.rel``, ``.rel.bin``) where both are
    there.
    """
    if os.path.isfile(path) or path.lower().endswith(GENOTYPE_SUFFIXES):
        return _format(path) is not None or (not path.endswith(_MATRIX_SUFFIXES) and is_no_matrix(path))
    if any(os.path.isfile(path + suffix) for suffix in _MATRIX_SUFFIXES):
        return False
    return any(os.path.isfile(path + suffix) for suffix in GENOTYPE_SUFFIXES)


def _format(path: str) -> str | None:
    """One of `GENOTYPE_SUFFIXES`: what the first bytes say, else what the name claims; None for anything else."""
    start = b""
    if os.path.isfile(path):  # opening a pipe would wait
        with suppress(OSError, EOFError, zlib.error), open(path, "rb") as file:
            start = file.read(BGEN_AT + len(BGEN))
            if start.startswith(GZIP_MAGIC):
                file.seek(0)
                start = gzip.GzipFile(fileobj=file).read(BGEN_AT)
    if start[BGEN_AT:] == BGEN:
        return ".bgen"
    if start.startswith(_VCF_STARTS):
        return ".vcf"
    claimed = next((suffix for suffix in GENOTYPE_SUFFIXES if path.lower().endswith(suffix)), None)
    if start.startswith(PLINK) and claimed != ".bgen":
        # A .pgen has 02 or more here.
        return ".bed" if start[2:3] in (SAMPLE_MAJOR, VARIANT_MAJOR) else ".pgen"
    return claimed


def _remedy(path: str) -> str:
    """What to do with a file of another format."""
    stem = path.removesuffix(".gz")
    for suffix, remedy in _REMEDIES.items():
        if stem.endswith(suffix):
            return remedy.replace("STEM", stem.removesuffix(suffix)).replace("FILE", path)
    return (
        "give a .bed (PLINK 1), .pgen (PLINK 2), .bgen, .vcf or .bcf, or a table whose first column is IID (samples in "
        "rows) or SNPID (variants in rows)"
    )


def _with_suffix(stem: str) -> str:
    """The one genotype file of this name without suffix."""
    if os.path.isdir(stem):
        raise InputError(f"{stem} is a directory; give a genotype file in it")
    found = [stem + suffix for suffix in GENOTYPE_SUFFIXES if os.path.isfile(stem + suffix)]
    if len(found) > 1:
        raise UsageError(f"{stem} may be any of {', '.join(found)}; give one of them with its suffix")
    if os.path.exists(stem) and not found:
        raise InputError(f"{stem} is no file; write genotypes to one first, or give VCF or BCF by standard input (-)")
    if not found:
        tried = (
            ""
            if stem.lower().endswith(GENOTYPE_SUFFIXES)
            else ", and none with .bed, .pgen, .bgen, .vcf or .bcf behind that name"
        )
        raise InputError(f"{stem}: there is no such file{tried}; check the path")
    return found[0]


@dataclass(frozen=True)
class SeveralFiles:
    """The genotypes of files with the same samples (a `GenotypeSource`); made by `join_files`.

    Variants of the ``sources`` follow one another, samples are in the order of the first file, and ``rows`` (n,) say
    where they are in each. ``ploidy`` is how many copies of a chromosome every sample has, to which dosages of 0 to 2
    in the files are stretched.
    """

    sources: tuple[GenotypeSource, ...]
    rows: tuple[NDArray[np.intp], ...]
    samples: Samples
    variants: Variants
    ploidy: int = 2

    @property
    def path(self) -> str:
        """The files, for messages."""
        return self.variants.source

    @property
    def files(self) -> Sequence[str]:
        """Every file that belongs to one of them, each once."""
        return tuple(dict.fromkeys(file for source in self.sources for file in source.files))

    @property
    def has_dosages(self) -> bool:
        """Whether one of the files may have genotypes other than 0, 1 and 2."""
        return any(source.has_dosages for source in self.sources)

    def read(self, variants: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Dosages of the effect allele; see `GenotypeSource.read`."""
        require_positions(self, variants, rows)
        dosages = np.empty((len(rows), len(variants)), dtype=np.float32, order="F")
        first = 0
        for source, rows_of_source in zip(self.sources, self.rows, strict=True):
            behind = first + len(source.variants)
            columns = slice(*np.searchsorted(variants, (first, behind)))
            if columns.start < columns.stop:
                dosages[:, columns] = source.read(variants[columns] - first, rows_of_source[rows])
            first = behind
        if self.ploidy == 2:
            return dosages
        dosages *= np.float32(self.ploidy / 2)
        whole = np.rint(dosages)
        # A third of 2 copies is rounded, and three of them are no whole number again.
        return np.where(np.abs(dosages - whole) < ROUNDING, whole, dosages)


def join_files(sources: Sequence[GenotypeSource], ploidy: int = 2) -> SeveralFiles:
    """Put genotype files of the same samples, in any order, together.

    Variants that are in more than one file are all kept, and counted in a warning. Raises InputError where a file lacks
    a sample of another.
    """
    samples = sources[0].samples
    rows = [np.arange(len(samples)), *(_rows_in(source, sources[0]) for source in sources[1:])]
    for number, source in enumerate(sources[1:], 1):
        for earlier in sources[:number]:
            _warn_of_duplicates(source.variants, earlier.variants)
    table = pa.concat_tables([source.variants.table for source in sources])
    more = len(sources) - 1
    names = sources[0].path + (f" and {more} more file{'s' * (more > 1)}" if more else "")
    left_out = frozenset[str]().union(*(source.variants.left_out for source in sources))
    return SeveralFiles(tuple(sources), tuple(rows), samples, Variants(table, names, left_out), ploidy)


def _rows_in(source: GenotypeSource, first: GenotypeSource) -> NDArray[np.intp]:
    """Where the samples of the first file are in another."""
    for of, other in ((first, source), (source, first)):
        positions = match(of.samples, other.samples)
        absent = np.flatnonzero(positions < 0)
        if len(absent):
            labels = ", ".join(f"'{of.samples.label(int(i))}'" for i in absent[:3])
            raise InputError(
                f"{other.path} lacks {len(absent)} of the {len(of.samples)} samples of {of.path}: {labels}"
                f"{', ...' if len(absent) > 3 else ''}; files that are one data set have the same samples, in any "
                "order: make them the same (plink2 --keep), or scan the files one by one"
            )
    return match(first.samples, source.samples)


def _warn_of_duplicates(variants: Variants, earlier: Variants) -> None:
    """Say which variants of a file are also in an earlier one: same chromosome, position, name and alleles."""
    if not set(encode_chromosomes(variants.table["CHR"])[0]) & set(encode_chromosomes(earlier.table["CHR"])[0]):
        return
    own, other = variants.table, earlier.table
    own = own.filter(pc.is_in(own["SNPID"], value_set=other["SNPID"]))
    other = other.filter(pc.is_in(other["SNPID"], value_set=own["SNPID"]))
    duplicates = own.to_pandas().merge(other.to_pandas().drop_duplicates())
    if len(duplicates):
        first = duplicates.iloc[0]
        logger.warning(
            "%s of %s also in %s, first %r at %s:%d; all are kept, so that each is tested twice: leave one of the files"
            " out if that is not meant",
            counted(len(duplicates), "variants"),
            variants.source,
            earlier.source,
            first["SNPID"],
            first["CHR"],
            first["POS"],
        )
