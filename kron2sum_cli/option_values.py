"""What single options may say: names of tests, significance, suffixes of outputs."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kron2sum_cli.errors import UsageError

STDIO = "-"
"""The file name that stands for standard input or output."""


def raise_all(problems: Iterable[str]) -> None:
    """Raise one `UsageError` with a line for each problem, if there is any."""
    found = list(problems)
    if found:
        raise UsageError("\n".join(found))


def empty_texts(options: Mapping[str, object]) -> Iterable[str]:
    """Options given as an empty text, such as an unset shell variable leaves behind, and an output without a name."""
    for name, value in options.items():
        if value == "" or (name in ("grm", "geno") and isinstance(value, tuple) and "" in value):
            yield f"--{name.replace('_', '-')}: a value is needed"
    if str(options["out"]).endswith("/"):
        yield f"--out {options['out']}: is a folder; name a file in it"


def repeated(option: str, names: Iterable[str]) -> list[str]:
    """What is wrong with an option that names something twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    return [f"{option}: {', '.join(twice)} named more than once"] if twice else []


def stdin_twice(paths: Iterable[str]) -> list[str]:
    """What is wrong with inputs of which more than one is standard input."""
    times = sum(path == STDIO for path in paths)
    return ["only one input can come from standard input (-)"] if times > 1 else []


FILES_OF_GENOTYPES = ("sample", "bim", "fam", "map")
"""Options that name files of samples or variants of genotypes."""


def files_without_genotypes(
    files: dict[str, str | None], geno: tuple[str, ...], in_a_list: bool = False
) -> Iterable[str]:
    """Files of samples and variants, by their options, that do not belong to the genotypes given."""
    if not geno and not in_a_list:
        yield from (f"--{name} belongs to genotypes: name them with --geno" for name, path in files.items() if path)
    if files["bim"] is not None and len(geno) > 1:
        yield "--bim has the variants of one file, and --geno names several"


_NAMED_TESTS = ("any", "common", "specific")
INTERACTION, DOMINANCE, BOTH_COLUMNS = TESTS_OF_SCAN = ("interaction", "dominance", "joint")
"""Tests that a table has only from a scan with ``--interaction`` or ``--coding genotypic``: of the second column of a
variant given its own effect, and of both."""

_FORMS = ("trait", "only", "axis")


def contrast_files(test: str) -> tuple[str, ...]:
    """The files that a test NAME=FILE or NAME=FILE0,FILE1 names."""
    _, equals, paths = test.partition("=")
    return tuple(paths.split(",")) if equals else ()


def without_folders(test: str) -> str:
    """A test as result tables record it: contrast files without their folders."""
    name, equals, _ = test.partition("=")
    return f"{name}={','.join(map(os.path.basename, contrast_files(test)))}" if equals else test


def naming_problems(test: str) -> Iterable[str]:
    """What is wrong with a test as it was asked for."""
    name, equals, _ = test.partition("=")
    kind, colon, rest = test.partition(":")
    if equals:
        paths = contrast_files(test)
        if not name or len(paths) > 2 or not all(paths):
            yield f"--test {test}: must be NAME=FILE, or NAME=FILE0,FILE1 for nested designs"
        elif name in _NAMED_TESTS or (colon and kind in _FORMS):
            yield f"--test {test}: {name} has a meaning already; choose another name"
    elif kind in _FORMS and colon:
        if not rest:
            yield f"--test {test}: name {'an axis' if kind == 'axis' else 'a trait'} after the colon"
    elif test in TESTS_OF_SCAN:
        yield f"--test {test}: comes with --interaction COVARIATE or --coding genotypic; leave it out"
    elif test not in _NAMED_TESTS:
        yield (
            f"--test {test}: must be {', '.join(_NAMED_TESTS)}, trait:NAME, trait:NAME|OTHERS, only:NAME, axis:K,"
            " NAME=FILE or NAME=FILE0,FILE1"
        )


@dataclass(frozen=True)
class GenomeWide:
    """Significance over a whole scan, ``gw:LEVEL``: by the simulated scans of ``--bootstrap``.

    ``level`` is the share of the simulated scans that have a smaller P.
    """

    level: float

    def __str__(self) -> str:
        return f"gw:{self.level:g}"

    @property
    def least_bootstrap(self) -> int:
        """Smallest number B of simulated scans that tell the threshold: ``(B + 1) level ≥ 1``."""
        return math.ceil(round(1 / self.level, 9)) - 1


Significance = float | GenomeWide
"""The largest P that is significant, of a single test or over the whole scan."""


COMPRESSIONS = (".gz", ".zst")
"""Suffixes of outputs that are written compressed."""

SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".parquet": "parquet", ".json": "json"}
OTHER_CONTENT = (
    *(".bgz", ".bz2", ".xz", ".zip", ".lz4"),
    *(".npz", ".npy", ".h5", ".hdf5", ".mat", ".pkl", ".rds", ".rdata", ".feather", ".arrow", ".xls", ".xlsx"),
    *(".html", ".png", ".svg", ".pdf"),
    *(".vcf", ".bcf"),
)
"""Suffixes of formats that no table is written in."""

_WRITTEN_AS = {"ssf": ("tsv",), "blup": ("tsv", "csv")}
"""What the files of two formats may be by their suffix."""


def split_suffix(out: str) -> tuple[str, str]:
    """The suffix of an output and that of its compression, in small letters; empty where there is none.

    >>> split_suffix("results.TSV.gz"), split_suffix("results")
    (('.tsv', '.gz'), ('', ''))
    """
    stem, suffix = os.path.splitext(out.lower())
    return (os.path.splitext(stem)[1], suffix) if suffix in COMPRESSIONS else (suffix, "")


def format_of(out: str, formats: Iterable[str], default: str) -> str:
    """The format that the suffix of an output names, where it is one of `formats`; else the default."""
    named = SUFFIXES.get(split_suffix(out)[0])
    return named if named is not None and named in formats else default


def unknown_suffix(out: str, formats: Iterable[str]) -> list[str]:
    """What is wrong with an output whose suffix has to name the format (without ``--to``) and names none."""
    suffix, _ = split_suffix(out)
    if not suffix or SUFFIXES.get(suffix, suffix) in formats:
        return []
    known = [name for name, written in SUFFIXES.items() if written in formats and name != ".txt"]
    return [
        f"--out {out}: {suffix} is not a format that is written; end the name with {', '.join(known)}"
        " (and .gz or .zst to compress it), or name the format with --to"
    ]


def untrue_suffix(out: str, to: str) -> list[str]:
    """What is wrong with an output whose suffix says something else than its format."""
    suffix, compression = split_suffix(out)
    named = SUFFIXES.get(suffix) if suffix != ".txt" or to == "parquet" else None
    if named is not None and named not in _WRITTEN_AS.get(to, (to,)):
        return [f"--out {out}: the suffix says {named}, and --to {to}; change one of them"]
    if suffix in OTHER_CONTENT or (to == "ssf" and compression == ".zst"):
        return [f"--out {out}: {to} is not written as {compression or suffix}; choose another suffix"]
    return []
