"""VCF and BCF genotypes, through the package cyvcf2.

A site with several ALT alleles is one variant for each of them: EA is that ALT allele, NEA is REF, and the dosage
counts the copies of EA, all other alleles alike (as ``bcftools norm -m -`` splits a site). Dosages (DS) are taken where
the file has them, else the sum of those of haplotypes (HDS, at sites with one ALT), else genotypes (GT). A genotype of
which an allele is missing is missing. A haploid genotype counts twice, as in the other formats, and one of p copies 2/p
times, dosages alike: that of a sample lies between 0 and the number of its alleles in GT, as plink2 reads it, or 2
without GT. FILTER and QUAL are not looked at.
"""

import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kron2sum_cli.errors import InputError, counted
from kron2sum_cli.files.inputs import GZIP_MAGIC
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.source import SpooledSource, Variants, spool

logger = logging.getLogger("kron2sum.genotypes")

ROUNDING = 1e-6
"""Share by which a dosage in single precision may exceed the number of copies."""

END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""Last bytes of a whole file that bgzip, bcftools or plink2 compressed (SAM specification, section 4.1.2)."""

Site: TypeAlias = tuple[Any, tuple[str, int, str, str, list[str]]]
"""What cyvcf2 has of a site, and its chromosome, position, name, REF and ALT alleles."""

_BGZF_MARK = slice(12, 14)
_AS_UTF_8 = "convert the file: bcftools view OLD | iconv -f latin1 -t utf-8 > NEW.vcf"
_REPLACED = "\ufffd"
"""What cyvcf2 puts in place of a byte that is not UTF-8."""
_MISSING_ALLELE, _NO_ALLELE = -1, -2
"""How cyvcf2 codes an allele that is missing, and what stands behind the alleles of a haploid genotype."""


def open_vcf(path: str, name: str | None = None) -> SpooledSource:
    """Read a VCF (compressed or not) or BCF file, whose genotypes go to a temporary file.

    A temporary file has another ``name`` in messages, and is not among the files of the genotypes. EA, the allele that
    dosages count, is ALT, and NEA is REF. Raises InputError where cyvcf2 is not installed, or the file is malformed,
    cut short, or has no samples or no variants.
    """
    files, name = ((path,), path) if name is None else ((), name)
    cyvcf2 = _cyvcf2(name)
    if not os.path.getsize(path):
        raise InputError(f"{name} is empty; check the command that wrote it, or copy it again")
    _refuse_cut_short(path, name)
    try:
        reader = cyvcf2.VCF(path)
        samples = Samples(None, tuple(reader.samples), name)
        # Not reader.contains("DS"): GATK writes an INFO of that name.
        fields = {line.info()["ID"] for line in reader.header_iter() if line.type == "FORMAT"}
        dosage_fields = fields & {"DS", "HDS"}
    except UnicodeDecodeError as error:
        shown = error.object.decode(errors="replace")
        raise InputError(f"{name}: the name of sample {shown!r} is not UTF-8; {_AS_UTF_8}") from None
    except Exception as error:  # whatever cyvcf2 raises for a header that cannot be parsed
        raise InputError(f"{name} cannot be read as VCF or BCF ({error}); check the file") from None
    if not len(samples):
        raise InputError(f"{name} has no samples, only sites; give the file with genotypes")
    _refuse_more_columns(path, name)
    if "GP" in fields and not dosage_fields:
        logger.warning(
            "%s has probabilities of genotypes (GP) and no dosages (DS): genotypes (GT) are read, as if they were"
            " certain; for dosages make a file with plink2 --vcf %s dosage=GP-force --make-pgen --out NEW",
            name,
            name,
        )
    rows: list[tuple[str, int, str, str, str]] = []
    has_dosages = bool(dosage_fields)
    sites = _sites(reader, path, name)
    genotypes = spool(_variants(sites, rows, samples, dosage_fields, name), has_dosages, name)
    return SpooledSource(name, files, samples, Variants.of_rows(rows, name), has_dosages, genotypes)


def _variants(
    sites: Iterator[Site],
    rows: list[tuple[str, int, str, str, str]],
    samples: Samples,
    dosage_fields: set[str],
    path: str,
) -> Iterator[NDArray[np.float32]]:
    """The dosages of every variant; its row of the table of variants is added to ``rows``."""
    without: list[str] = []
    for site, (chromosome, position, name, ref, alts) in sites:
        place = f"{name} at {chromosome}:{position}"
        dosages = _dosages(site, samples, dosage_fields, place)
        if dosages is None:
            without.append(place)
            continue
        for alt, dosages_of_alt in zip(alts, dosages, strict=True):
            rows.append((chromosome, position, name, alt, ref))
            yield dosages_of_alt
    if not rows:
        raise InputError(
            f"{path} has no variant with genotypes (GT) or dosages (DS, HDS); check the command that wrote it"
        )
    if without:
        logger.warning(
            "%s: %s without genotypes (GT) and dosages (DS, HDS) left out, first %s",
            path,
            counted(len(without), "sites"),
            without[0],
        )


def _sites(reader: Any, path: str, name: str) -> Iterator[Site]:
    """The sites of a file, which has a ``name`` in messages."""
    sites, last = iter(reader), "its header"
    for number in count():
        try:
            site = next(sites)
            # Of a line without genotypes, such as an empty one, cyvcf2 makes a site of which nothing else can be asked.
            named = (site.CHROM, site.POS, site.ID or ".", site.REF, site.ALT or ["."]) if site.FORMAT else None
        except StopIteration:
            return
        except Exception as error:  # whatever cyvcf2 raises for a line that cannot be parsed
            unknown = f" cannot be read behind {last} ({error}); check the file"
            raise InputError(name + (_wrong_line(path, number) or unknown)) from None
        if named is None:
            unknown = f" has a site without genotypes behind {last}; remove it"
            raise InputError(name + (_wrong_line(path, number) or unknown))
        last = f"{named[2]} at {named[0]}:{named[1]}"
        if _REPLACED in named[2]:
            raise InputError(f"{name}: the name of variant {last} is not UTF-8; {_AS_UTF_8}")
        yield site, named


def _line_of_site(path: str, number: int) -> tuple[int, bytes, int] | None:
    """The line of a VCF behind the header and ``number`` sites: its number, itself, and the columns of the header.

    None of BCF and of damaged files.
    """
    try:
        with open(path, "rb") as start:
            opened = gzip.open if start.read(len(GZIP_MAGIC)) == GZIP_MAGIC else open
        with opened(path, "rb") as file:
            if not file.readline().startswith(b"##"):
                return None
            lines = enumerate(file, start=2)
            header = next(line for _, line in lines if not line.startswith(b"##"))
            return *next(islice(lines, number, None)), header.count(b"\t") + 1
    except (OSError, EOFError, zlib.error, StopIteration):
        return None


def _refuse_more_columns(path: str, name: str) -> None:
    """Refuse a file whose first site has more columns than the header, which cyvcf2 leaves out in silence."""
    if found := _line_of_site(path, 0):
        at, line, n_columns = found
        n_cells = line.rstrip(b"\t\r\n").count(b"\t") + 1
        if n_cells > n_columns:
            raise InputError(name + _other_columns(at, n_cells, n_columns))


def _wrong_line(path: str, number: int) -> str:
    """What is wrong with the line of a VCF behind the header and ``number`` sites; empty of BCF and damaged files."""
    if not (found := _line_of_site(path, number)):
        return ""
    at, line, n_columns = found
    if not line.strip():
        return f", line {at} is empty; remove it"
    cells = line.split(b"\t")
    if len(cells) != n_columns:
        return _other_columns(at, len(cells), n_columns)
    shown = " ".join(cell.decode(errors="replace") for cell in cells[:5])
    return f", line {at} ({shown} ...) is not a site of a VCF; correct its position, FORMAT or genotypes"


def _other_columns(at: int, n_cells: int, n_columns: int) -> str:
    return (
        f", line {at} has {n_cells} columns with tabs between, and the header {n_columns}; complete it, or copy"
        " the file again"
    )


def _dosages(site: Any, samples: Samples, dosage_fields: set[str], place: str) -> NDArray[np.float32] | None:
    """(k, n) dosages of the k ALT alleles of a site, NaN where missing; None where it has no genotypes.

    Raises InputError where a genotype has an allele that the site does not have, or a dosage is less than 0 or more
    than the alleles of the sample.
    """
    n_alts, fields = max(len(site.ALT), 1), site.FORMAT
    stored, found, n_copies = None, None, np.full(len(samples), 2)
    if "GT" in fields:
        alleles = site.genotype.array()[:, :-1]  # the last column is the phase
        _refuse_unlisted(alleles, len(site.ALT), samples, place)
        n_copies = _copies(alleles)
        copies = np.array([np.count_nonzero(alleles == alt, axis=1) for alt in range(1, n_alts + 1)])
        found = (2 * copies / n_copies).astype(np.float32)
        found[:, (alleles == _MISSING_ALLELE).any(axis=1)] = np.nan
    dosage_fields = dosage_fields.intersection(fields)
    if "DS" in dosage_fields:
        stored = site.format("DS")[:, :n_alts].T.astype(np.float32)
    elif "HDS" in dosage_fields and n_alts == 1:
        stored, n_copies = _of_haplotypes(site.format("HDS"), None if found is None else n_copies)
    if stored is not None and stored.shape == (n_alts, len(samples)):
        _refuse_outside(stored, n_copies, samples, place)
        stored *= (2 / n_copies).astype(np.float32)
        found = stored if found is None else np.where(np.isnan(stored), found, stored)
    return found


def _of_haplotypes(
    stored: NDArray[np.floating], n_copies: NDArray[np.integer] | None
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Dosages (1, n) of samples whose haplotypes have ``stored`` (n, copies), and how many copies each sample has.

    A sample without a number for each of its ``n_copies`` is missing; None counts the numbers.
    """
    n_numbers = np.count_nonzero(~np.isnan(stored), axis=1)
    n_copies = np.maximum(n_numbers, 1) if n_copies is None else n_copies
    dosages = np.where(n_numbers == n_copies, np.nansum(stored, axis=1), np.nan)
    return dosages[None].astype(np.float32), n_copies


def _copies(alleles: NDArray[np.integer]) -> NDArray[np.integer]:
    """How many alleles each of n samples has.

    A ``.`` may be a missing genotype of any ploidy: it is haploid where another sample is, else as the others.
    """
    n_copies = np.count_nonzero(alleles != _NO_ALLELE, axis=1)
    unknown = (n_copies == 1) & (alleles[:, 0] == _MISSING_ALLELE)
    known = n_copies[~unknown]
    return np.where(unknown & ~(known == 1).any(), known.max(initial=0) or 2, n_copies)


def _refuse_unlisted(alleles: NDArray[np.integer], n_alts: int, samples: Samples, place: str) -> None:
    """Refuse genotypes (n, copies) with another allele than REF, 0, and those of ALT, 1 to ``n_alts``."""
    if alleles.max(initial=0) > n_alts:
        k = int((alleles > n_alts).any(axis=1).argmax())
        raise InputError(
            f"{samples.source}, variant {place}: the genotype (GT) of sample '{samples.label(k)}' has allele"
            f" {alleles[k].max()}, and the ALT alleles of the site are {n_alts}; correct it, or write ./. for a missing"
            " one"
        )


def _refuse_outside(stored: NDArray[np.float32], n_copies: NDArray[np.integer], samples: Samples, place: str) -> None:
    """Refuse dosages (k, n) that are no number of copies."""
    outside = np.argwhere((stored < 0) | (stored > n_copies * (1 + ROUNDING)))
    if len(outside):
        alt, k = outside[0]
        raise InputError(
            f"{samples.source}, variant {place}: the dosage (DS, or sum of HDS) of sample '{samples.label(int(k))}' is"
            f" {stored[alt, k]:g}, not between 0 and {n_copies[k]}, the number of its alleles (by GT; 2 without);"
            " correct it, or write . for a missing one"
        )


def _refuse_cut_short(path: str, name: str) -> None:
    with open(path, "rb") as file:
        start = file.read(_BGZF_MARK.stop)
        if start.startswith(GZIP_MAGIC) and start[_BGZF_MARK] == b"BC":
            file.seek(max(os.path.getsize(path) - len(END_OF_BGZF), 0))
            if file.read() != END_OF_BGZF:
                raise InputError(
                    f"{name} is cut short: the end of a compressed VCF or BCF is missing; copy the file again"
                )


def _cyvcf2(path: str) -> Any:
    """The package, which is only installed with the extra ``vcf``."""
    try:
        import cyvcf2
    except ImportError:
        raise InputError(
            f"{path}: the package cyvcf2 reads VCF and BCF files, and it is not installed; run: pip install "
            "'kron2sum-cli[vcf]'. Where there is none for this Python, convert the file: plink2 --vcf FILE dosage=DS "
            "--make-pgen --out NEW (without dosage=DS where there are no dosages)"
        ) from None
    return cyvcf2
