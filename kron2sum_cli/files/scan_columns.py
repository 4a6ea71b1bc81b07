"""The columns of results, each declared once: name, type, meaning; everything that writes or reads one looks here.

A table has the columns of its variants (or sets), those of the test of any effect, then those of every trait, of every
further test, and of the trait axes. To add a column: declare it, add it to `COLUMNS`, name it in `scan_schema`, and
fill it in `scan.block`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from kron2sum_cli.errors import UsageError
from kron2sum_cli.option_values import BOTH_COLUMNS, INTERACTION

ANY = "any"
"""Name of the test of an effect on any trait; its columns have no ending."""


@dataclass(frozen=True)
class Column:
    """A column of results.

    - ``name``: its name; of a column that every trait, test, axis or pair of traits has, what stands before the dot.
    - ``type``: of its values.
    - ``meaning``: what it holds, as the page of files says it.
    - ``of``: whose it is: "variant", "set", "test", "set test", "trait", "axis", or "pair" of traits.
    - ``ssf``: name in a GWAS-SSF file; "" where the standard has none and ours is not written there.
    - ``required``: whether no cell may be empty.
    - ``repeating``: whether it has few different values, which a dictionary shortens.
    """

    name: str
    type: pa.DataType
    meaning: str
    of: Literal["variant", "set", "test", "set test", "trait", "axis", "pair"] = "variant"
    ssf: str = ""
    required: bool = False
    repeating: bool = False

    def named(self, *of: str) -> str:
        """Name of the column of one trait, test, axis or pair of traits.

        >>> BETA.named("height"), CHISQ.named("common"), CHISQ.named("any"), COV.named("height", "weight")
        ('BETA.height', 'CHISQ.common', 'CHISQ', 'COV.height.weight')
        """
        return self.name if self.of == "test" and of == (ANY,) else ".".join((self.name, *of))

    def field(self, name: str) -> pa.Field:
        """The column under one of its names, for a schema of Arrow."""
        return pa.field(name, self.type, nullable=not self.required)


_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int32()

CHR = Column("CHR", _TEXT, "chromosome, as in the genotype file", ssf="chromosome", required=True, repeating=True)
POS = Column("POS", pa.int64(), "position in base pairs", ssf="base_pair_location", required=True)
SNPID = Column("SNPID", _TEXT, "name of the variant", required=True)
EA = Column("EA", _TEXT, "effect allele", ssf="effect_allele", required=True, repeating=True)
NEA = Column("NEA", _TEXT, "other allele", ssf="other_allele", required=True, repeating=True)
EAF = Column("EAF", _NUMBER, "frequency of the effect allele in the analysed samples", ssf="effect_allele_frequency")
N = Column("N", _COUNT, "analysed samples with a genotype", ssf="n", required=True, repeating=True)
INFO = Column("INFO", _NUMBER, "imputation quality of dosages, empty where genotypes are certain")

SET = Column("SET", _TEXT, "name of the set", "set")
SET_CHR = Column("CHR", _TEXT, "chromosome of the set; empty where it has several", "set", repeating=True)
START = Column("START", pa.int64(), "position of the first variant tested", "set")
END = Column("END", pa.int64(), "position of the last variant tested", "set")
NVAR = Column("NVAR", _COUNT, "variants of the set that vary and pass the filters: those tested", "set")
NVAR_LEFT_OUT = Column("NVAR_LEFT_OUT", _COUNT, "further variants of the set that the genotypes have", "set")
CARRIERS = Column(
    "CARRIERS", _COUNT, "analysed samples with the rarer allele of a variant tested, or with the rarest founder", "set"
)
TOP = Column("TOP", _TEXT, "variant with the largest share of the statistic of skat", "set")
TOP_SHARE = Column("TOP_SHARE", _NUMBER, "share of that variant in the statistic of skat", "set")

CHISQ = Column("CHISQ", _NUMBER, "likelihood ratio statistic", "test", "chi_square")
DF = Column("DF", _COUNT, "degrees of freedom", "test", "degrees_of_freedom", repeating=True)
P = Column("P", _NUMBER, "P value; 0 where it is below 10⁻³²³", "test")
MLOG10P = Column("MLOG10P", _NUMBER, "-log₁₀ P, which does not underflow", "test", "neg_log_10_p_value")
P_SET = Column("P_SET", _NUMBER, "P value of a test of a set; 0 where it is below 10⁻³²³", "set test")
MLOG10P_SET = Column("MLOG10P_SET", _NUMBER, "-log₁₀ P of a test of a set", "set test")
CHISQ_REFIT = Column(
    "CHISQ_REFIT",
    _NUMBER,
    "likelihood ratio statistic of a refit, over its Bartlett factor",
    "test",
    "refit_chi_square",
)
MLOG10P_REFIT = Column("MLOG10P_REFIT", _NUMBER, "-log₁₀ P of a refit", "test", "refit_neg_log_10_p_value")

MLOG10P_GW = Column("MLOG10P_GW", _NUMBER, "-log₁₀ P adjusted for the whole scan (`--bootstrap`)", "test")

MLOG10P_SET_GW = Column(
    "MLOG10P_SET_GW", _NUMBER, "-log₁₀ P of a test of a set adjusted for the whole scan", "set test"
)

TRAIT_N = Column(
    "N", _COUNT, "analysed samples with a genotype and the trait", "trait", "n", required=True, repeating=True
)
BETA = Column("BETA", _NUMBER, "effect of one more effect allele in the joint model", "trait", "beta")
SE = Column("SE", _NUMBER, "standard error of the effect", "trait", "standard_error")
TRAIT_MLOG10P = Column(
    "MLOG10P", _NUMBER, "-log₁₀ P of the effect given effects on the other traits", "trait", "neg_log_10_p_value"
)
TRAIT_MLOG10P_GW = Column(
    "MLOG10P_GW", _NUMBER, "-log₁₀ P of the effect on the trait adjusted for the whole scan", "trait"
)
BETA_REFIT = Column("BETA_REFIT", _NUMBER, "effect of one more effect allele in a refit", "trait")
SE_REFIT = Column("SE_REFIT", _NUMBER, "standard error of the effect in a refit", "trait")
BETA_GXE = Column("BETA_GXE", _NUMBER, "change of the effect with one more of the covariate (`--interaction`)", "trait")
SE_GXE = Column("SE_GXE", _NUMBER, "standard error of the change", "trait")
MLOG10P_GXE = Column("MLOG10P_GXE", _NUMBER, "-log₁₀ P of the change given those in the other traits", "trait")
BETA_GXE_REFIT = Column("BETA_GXE_REFIT", _NUMBER, "the change in a refit", "trait")
SE_GXE_REFIT = Column("SE_GXE_REFIT", _NUMBER, "standard error of the change in a refit", "trait")
BETA_DOM = Column(
    "BETA_DOM", _NUMBER, "deviation of heterozygotes from the mean of homozygotes (`--coding genotypic`)", "trait"
)
SE_DOM = Column("SE_DOM", _NUMBER, "standard error of the deviation", "trait")
MLOG10P_DOM = Column("MLOG10P_DOM", _NUMBER, "-log₁₀ P of the deviation given those in the other traits", "trait")
BETA_DOM_REFIT = Column("BETA_DOM_REFIT", _NUMBER, "the deviation in a refit", "trait")
SE_DOM_REFIT = Column("SE_DOM_REFIT", _NUMBER, "standard error of the deviation in a refit", "trait")

AXIS = Column("AXIS", _NUMBER, "information along a trait axis, or of two of them where they are coupled", "axis")
COV = Column("COV", _NUMBER, "covariance of the effects on two traits", "pair")
FDR = Column("FDR", _NUMBER, "P adjusted for the false discovery rate (`export --fdr`)", "test")
FDR_SET = Column("FDR_SET", _NUMBER, "P of a test of a set adjusted for the false discovery rate", "set test")
PVE = Column("PVE", _NUMBER, "share of the variance of all traits that the variant explains (`export`)")
TRAIT_PVE = Column("PVE", _NUMBER, "share of the variance of the trait that the variant explains (`export`)", "trait")

LEAD_TEST = Column("LEAD_TEST", _TEXT, "test in which the lead variant is strongest (`export --leads`)")
LOD_FROM = Column("LOD_FROM", pa.int64(), "first position of the 1.5 LOD interval of the locus (`export --leads`)")
LOD_TO = Column("LOD_TO", pa.int64(), "last position of the 1.5 LOD interval")
BAYES_FROM = Column(
    "BAYES_FROM", pa.int64(), "first position of the 95% Bayes interval of the locus (`export --leads`)"
)
BAYES_TO = Column("BAYES_TO", pa.int64(), "last position of the 95% Bayes interval")

LOCUS = Column("LOCUS", _COUNT, "number of the locus, in the order of the genotype file", required=True)
STEP = Column(
    "STEP", _COUNT, "number of the signal in its locus, in the order in which they were chosen", required=True
)
MLOG10P_JOINT = Column("MLOG10P_JOINT", _NUMBER, "-log₁₀ P given all other signals of the chromosome")

VARIANT_COLUMNS = (CHR, POS, SNPID, EA, NEA, EAF, N)
IDENTITY_COLUMNS = (CHR, POS, SNPID, EA, NEA)
SET_COLUMNS = (SET, SET_CHR, START, END, NVAR, NVAR_LEFT_OUT, CARRIERS)
ANY_COLUMNS = (CHISQ, DF, P, MLOG10P)
TEST_COLUMNS = (CHISQ, DF, MLOG10P)
TEST_REFIT_COLUMNS = (CHISQ_REFIT, MLOG10P_REFIT)
TRAIT_COLUMNS = (BETA, SE, TRAIT_MLOG10P)
TRAIT_REFIT_COLUMNS = (BETA_REFIT, SE_REFIT)
SIGNAL_COLUMNS = (LOCUS, STEP, *VARIANT_COLUMNS, MLOG10P, MLOG10P_JOINT)
INTERACTION_COLUMNS = (BETA_GXE, SE_GXE, MLOG10P_GXE)
DOMINANCE_COLUMNS = (BETA_DOM, SE_DOM, MLOG10P_DOM)
INTERACTION_REFIT_COLUMNS = (BETA_GXE_REFIT, SE_GXE_REFIT)
DOMINANCE_REFIT_COLUMNS = (BETA_DOM_REFIT, SE_DOM_REFIT)
LEAD_COLUMNS = (LEAD_TEST, LOD_FROM, LOD_TO, BAYES_FROM, BAYES_TO)

COLUMNS = (
    *VARIANT_COLUMNS,
    INFO,
    *SET_COLUMNS,
    TOP,
    TOP_SHARE,
    *ANY_COLUMNS,
    P_SET,
    MLOG10P_SET,
    *TEST_REFIT_COLUMNS,
    MLOG10P_GW,
    MLOG10P_SET_GW,
    TRAIT_N,
    *TRAIT_COLUMNS,
    *TRAIT_REFIT_COLUMNS,
    TRAIT_MLOG10P_GW,
    *INTERACTION_COLUMNS,
    *INTERACTION_REFIT_COLUMNS,
    *DOMINANCE_COLUMNS,
    *DOMINANCE_REFIT_COLUMNS,
    AXIS,
    COV,
    FDR,
    FDR_SET,
    PVE,
    TRAIT_PVE,
    *LEAD_COLUMNS,
)
"""All columns that a scan writes or an export computes; a table with another is refused."""

_BY_NAME = {column.name: column for column in reversed(COLUMNS)}


def column_of(name: str) -> Column | None:
    """The column that a name in a table belongs to; None for one that is not declared.

    A trait and a test can have columns of the same name and type (``MLOG10P.height``); either is returned.
    """
    kind, dot, _ = name.partition(".")
    column = _BY_NAME.get(kind)
    if column is None or (column.of in ("axis", "pair") and not dot):
        return None
    return None if column is INFO and dot else column  # INFO.k is of an early version


def axis_columns(p: int, coupled: bool = False) -> list[str]:
    """Names of the columns of the information along the p trait axes.

    >>> axis_columns(2)
    ['AXIS.1', 'AXIS.2']
    >>> axis_columns(2, coupled=True)
    ['AXIS.1.1', 'AXIS.2.1', 'AXIS.2.2']
    """
    if coupled:  # the lower triangle of a matrix
        return [AXIS.named(str(j), str(k)) for j in range(1, p + 1) for k in range(1, j + 1)]
    return [AXIS.named(str(j)) for j in range(1, p + 1)]


def scan_schema(
    traits: Sequence[str],
    tests: Sequence[str],
    refit: bool = False,
    coupled: bool = False,
    counted: bool = False,
    dosages: bool = False,
    bootstrap: bool = False,
    second: str | None = None,
) -> pa.Schema:
    """The columns of a table of variants, in order.

    - ``traits``: names of the p traits.
    - ``tests``: names of the tests beside that of any effect.
    - ``refit``: whether it has the columns of refits.
    - ``coupled``: whether the null model's fixed effects or missing cells couple the trait axes.
    - ``counted``: whether every trait has its own number of samples.
    - ``dosages``: whether genotypes may be dosages, which have a quality.
    - ``bootstrap``: whether it has P values over the whole scan.
    - ``second``: `INTERACTION` or `DOMINANCE` where variants have such a second column; None where they have none.

    Raises UsageError where a trait and a test have the same name.
    """
    if ANY in traits:
        raise UsageError(f"trait {ANY}: is the name of the test of an effect on any trait; rename it, and fit again")
    of_trait = (*((TRAIT_N,) if counted else ()), *TRAIT_COLUMNS)
    of_test = (*TEST_COLUMNS, *(TEST_REFIT_COLUMNS if refit else ()))
    found = [column.field(column.name) for column in (*VARIANT_COLUMNS, *((INFO,) if dosages else ()))]
    found += [column.field(column.name) for column in (*ANY_COLUMNS, *(TEST_REFIT_COLUMNS if refit else ()))]
    found += _fields(of_trait, traits)
    if refit:
        found += _fields(TRAIT_REFIT_COLUMNS, traits)
    found += _fields(of_test, tests)
    if second is not None:
        of_second = (*columns_of_second(second), *(refit_columns_of_second(second) if refit else ()))
        found += _fields(of_second, traits) + _fields(of_test, [second, BOTH_COLUMNS])
    if bootstrap:
        found += [*_fields((MLOG10P_GW,), [ANY]), *_fields((TRAIT_MLOG10P_GW,), traits), *_fields((MLOG10P_GW,), tests)]
        found += _fields((MLOG10P_GW,), () if second is None else [second, BOTH_COLUMNS])
    found += [AXIS.field(name) for name in axis_columns(len(traits), coupled)]
    return _schema(found)


def signal_schema(traits: Sequence[str]) -> pa.Schema:
    """The columns of the table of independent signals (``--stepwise``), in order."""
    found = [column.field(column.name) for column in SIGNAL_COLUMNS]
    return _schema([*found, *_fields(TRAIT_COLUMNS, traits)])


def columns_of_second(second: str) -> tuple[Column, Column, Column]:
    """Columns of the effect of a second column of a variant, its standard error and its P."""
    return INTERACTION_COLUMNS if second == INTERACTION else DOMINANCE_COLUMNS


def refit_columns_of_second(second: str) -> tuple[Column, Column]:
    """Columns of the effect of a second column in a refit, and its standard error."""
    return INTERACTION_REFIT_COLUMNS if second == INTERACTION else DOMINANCE_REFIT_COLUMNS


def set_schema(tests: Sequence[str], set_tests: Sequence[str] = ("fixed",), bootstrap: bool = False) -> pa.Schema:
    """The columns of a table of sets of variants.

    There are ``tests`` beside that of any effect; of the ways to test a set ``fixed`` has the columns of variants'
    tests. With ``bootstrap`` it has P values over the whole scan. Raises UsageError where two tests have the same name.
    """
    others = [name for name in set_tests if name != "fixed"]
    found = [column.field(column.name) for column in SET_COLUMNS]
    found += [column.field(column.name) for column in ANY_COLUMNS if "fixed" in set_tests]
    found += _fields((P_SET, MLOG10P_SET), others)
    for test in tests:
        found += _fields(TEST_COLUMNS, [test]) if "fixed" in set_tests else []
        found += [MLOG10P_SET.field(MLOG10P_SET.named(name, test)) for name in others]
    for parts in ([], *([test] for test in tests)) if bootstrap else ():
        found += [MLOG10P_SET_GW.field(MLOG10P_SET_GW.named(name, *parts)) for name in set_tests]
    return _schema([*found, *(column.field(column.name) for column in (TOP, TOP_SHARE) if others)])


def _fields(columns: Sequence[Column], names: Sequence[str]) -> list[pa.Field]:
    return [column.field(column.named(name)) for name in names for column in columns]


def _schema(found: Sequence[pa.Field]) -> pa.Schema:
    refuse_repeated([field.name for field in found])
    return pa.schema(found)


def refuse_repeated(names: Sequence[str]) -> None:
    """Refuse columns of which two have the same name, that of a trait and that of a test."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"two columns would be called {twice[0]}: rename the trait or test {twice[0].split('.', 1)[1]}"
        )
