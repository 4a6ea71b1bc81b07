"""Simulate the example data: families, three traits, two covariates, a PLINK 1 file set; genes with rare variants.

Running it again gives the same files byte for byte::

    python example_data/simulate.py            # writes beside this script
    python example_data/simulate.py FOLDER     # writes elsewhere

Two mildly different populations descend from common ancestors. Founders are mosaics of ancestral
haplotypes, so that neighbouring variants are in linkage disequilibrium; their children and
grandchildren get recombined haplotypes by gene dropping. The traits follow the model that is fitted,

    Y = X B + Z E + G U + R,    rows of U ~ N(0, C0), rows of R ~ N(0, C1),

with X the covariates, Z the planted variants, and G the standardised genotypes over sqrt(variants).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SEED = 86

CHROMOSOMES = {"1": (48_000_000, 800), "2": (42_000_000, 700), "3": (36_000_000, 600)}
CHROMOSOMES |= {"4": (30_000_000, 500), "5": (24_000_000, 400)}
"""Length in base pairs and number of variants of each chromosome."""

ANCESTORS = 32
"""Ancestral haplotypes; each population descends from three quarters of them, half are common to both."""
ANCESTRAL_SEGMENT = 1_000_000.0
"""Mean length in base pairs of what a founder has from one ancestor; the ancestors' trees change as often."""
MORGAN = 75_000_000.0
"""Base pairs in one Morgan of the pedigree."""

NUCLEAR_FAMILIES = 40
THREE_GENERATIONS = 11
UNRELATED = 41

MONOMORPHIC = 5
BADLY_TYPED = 6
MISSING_GENOTYPES = 0.01
MISSING_WHERE_BADLY_TYPED = 0.10
MISSING_PHENOTYPES = 0.025

TRAITS = ("height", "weight", "glucose")
DECIMALS = (1, 1, 2)
MEANS = np.array([176.0, 74.0, 4.6])
SEX_EFFECTS = np.array([-12.0, -11.0, -0.1])
"""Of women against men."""
AGE_EFFECTS = np.array([-0.05, 0.12, 0.012])
"""Per year."""
SCALES = np.array([6.5, 10.0, 0.6])
"""Standard deviations given the covariates and the planted variants: cm, kg, mmol/L."""
HERITABILITIES = np.array([0.6, 0.4, 0.3])
GENETIC_CORRELATIONS = np.array([[1.0, 0.5, -0.2], [0.5, 1.0, 0.3], [-0.2, 0.3, 1.0]])
RESIDUAL_CORRELATIONS = np.array([[1.0, 0.4, 0.0], [0.4, 1.0, 0.2], [0.0, 0.2, 1.0]])

PLANTED = {"1": (2.2, 3.4, 0.22), "3": (0.0, 0.0, 0.36), "5": (2.2, -3.2, 0.0)}
"""Effect per copy of the effect allele on each trait, of one variant in the middle of a chromosome."""

LIPID_SEED = 16
"""Of the rare variants and of the traits that one of their genes acts on; the other files do not depend on it."""
GENES = {"1": (9_000_000, 31_000_000), "2": (20_000_000,), "3": (8_000_000, 27_000_000), "4": (15_000_000,)}
"""Where genes begin on each chromosome."""
GENE_LENGTH = 30_000
RARE_VARIANTS = 15
"""In each gene."""
RARE_FREQUENCIES = 0.004, 0.012
"""From which the frequency of a rare variant among founders is drawn."""
LIPIDS = ("ldl", "hdl", "triglycerides")
LIPID_MEANS = np.array([3.3, 1.4, 1.5])
LIPID_SCALES = np.array([0.9, 0.35, 0.6])
"""mmol/L."""
ACTING_GENE = 3
"""Counted from 0."""
ACTING_VARIANTS = 12
GENE_EFFECTS = np.array([0.6, -0.6, 0.0])
"""Largest effect per copy of a rare allele of the gene, in standard deviations; the smallest is half as large."""


def covariance(variances: Floats, correlations: Floats) -> Floats:
    """Covariance matrix of the traits."""
    deviations = np.sqrt(variances)
    return deviations[:, None] * correlations * deviations


C0 = covariance(SCALES**2 * HERITABILITIES, GENETIC_CORRELATIONS)
C1 = covariance(SCALES**2 * (1 - HERITABILITIES), RESIDUAL_CORRELATIONS)


class Draws:
    """Random numbers made from PCG64's raw stream, the part that numpy promises never to change."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> Floats:
        """Numbers in [0, 1)."""
        raw = np.asarray(self._stream.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def integers(self, low: int, high: int, *shape: int) -> Ints:
        """Whole numbers in low, ..., high - 1."""
        return low + np.floor((high - low) * self.uniform(*shape)).astype(np.int64)

    def integer(self, low: int, high: int) -> int:
        """One whole number in low, ..., high - 1."""
        return int(self.integers(low, high, 1)[0])

    def normal(self, *shape: int) -> Floats:
        """Standard normal numbers (Box and Muller)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(*shape)))
        return np.asarray(radius * np.cos(2 * np.pi * self.uniform(*shape)))

    def order(self, count: int) -> Ints:
        """A permutation of 0, ..., count - 1."""
        return np.argsort(self.uniform(count), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Person:
    """One row of the .fam: ``father`` and ``mother`` are positions in the pedigree, None for founders."""

    fid: str
    iid: str
    father: int | None
    mother: int | None
    sex: int
    age: int
    population: int


class Pedigree:
    """People in an order in which parents come before their children."""

    def __init__(self, draws: Draws) -> None:
        self.people: list[Person] = []
        self._draws = draws
        self._families = 0
        for _ in range(NUCLEAR_FAMILIES):
            self._add_nuclear_family()
        for _ in range(THREE_GENERATIONS):
            self._add_three_generations()
        for _ in range(UNRELATED):
            self._open_family()
            self._add((18, 80))

    def _open_family(self) -> None:
        self._families += 1
        self._population = self._draws.integer(0, 2)

    def _add(self, ages: tuple[int, int], sex: int | None = None, parents: tuple[int, int] | None = None) -> int:
        father, mother = parents if parents else (None, None)
        fid, iid = f"F{self._families:03d}", f"S{len(self.people) + 1:04d}"
        sex = self._draws.integer(1, 3) if sex is None else sex
        age = self._draws.integer(*ages)
        self.people.append(Person(fid, iid, father, mother, sex, age, self._population))
        return len(self.people) - 1

    def _add_children(self, parents: tuple[int, int], count: int, ages: tuple[int, int]) -> list[int]:
        return [self._add(ages, parents=parents) for _ in range(count)]

    def _add_nuclear_family(self) -> None:
        self._open_family()
        parents = self._add((48, 63), sex=1), self._add((48, 63), sex=2)
        self._add_children(parents, self._draws.integer(2, 7), (18, 31))

    def _add_three_generations(self) -> None:
        self._open_family()
        grandparents = self._add((70, 83), sex=1), self._add((70, 83), sex=2)
        for child in self._add_children(grandparents, 2, (46, 53)):
            if self.people[child].sex == 1:
                parents = child, self._add((46, 53), sex=2)
            else:
                parents = self._add((46, 53), sex=1), child
            self._add_children(parents, self._draws.integer(2, 4), (18, 29))


@dataclass(frozen=True)
class Map:
    """Where the variants are: chromosome names, positions, and base pairs from the variant before.

    ``gaps`` is infinite at the first variant of a chromosome.
    """

    chromosomes: tuple[str, ...]
    positions: Ints
    gaps: Floats


def draw_map(draws: Draws) -> Map:
    """Place the variants at random."""
    names: list[str] = []
    positions: list[Ints] = []
    gaps: list[Floats] = []
    for name, (length, count) in CHROMOSOMES.items():
        # One base pair more for each variant before: no two share a position.
        places = np.sort(draws.integers(1, length - count, count)) + np.arange(count)
        names += [name] * count
        positions.append(places)
        gaps.append(np.diff(places, prepend=-np.inf))
    return Map(tuple(names), np.concatenate(positions), np.concatenate(gaps))


def draw_clades(draws: Draws) -> Bytes:
    """Groups of ancestors that a random coalescent tree holds together, without the smallest."""
    lineages = list(np.eye(ANCESTORS, dtype=np.uint8))
    clades = []
    while len(lineages) > 1:
        first = lineages.pop(draws.integer(0, len(lineages)))
        second = lineages.pop(draws.integer(0, len(lineages)))
        lineages.append(first | second)
        clades.append(first | second)
    sizes = np.sum(clades, axis=1)
    return np.asarray(np.array(clades)[(sizes >= 3) & (sizes <= ANCESTORS - 3)])


def draw_ancestors(draws: Draws, variants: Map) -> Bytes:
    """Ancestral haplotypes, (ANCESTORS, variants): every variant is a mutation on its segment's tree."""
    new_tree = draws.uniform(len(variants.gaps)) < -np.expm1(-variants.gaps / ANCESTRAL_SEGMENT)
    haplotypes = np.empty((ANCESTORS, len(variants.gaps)), dtype=np.uint8)
    clades = draw_clades(draws)
    for variant, starts_tree in enumerate(new_tree):
        if starts_tree:
            clades = draw_clades(draws)
        clade = clades[draws.integer(0, len(clades))]
        haplotypes[:, variant] = clade ^ draws.integer(0, 2)
    return haplotypes


def draw_founder(draws: Draws, ancestors: Bytes, variants: Map, population: int) -> Bytes:
    """Two haplotypes of a founder, (2, variants), mosaics of the ancestors of a population."""
    count = len(variants.gaps)
    low = population * ANCESTORS // 4
    haplotypes = np.empty((2, count), dtype=np.uint8)
    for strand in range(2):
        switches = draws.uniform(count) < -np.expm1(-variants.gaps / ANCESTRAL_SEGMENT)
        segments = np.cumsum(switches) - 1
        source = draws.integers(low, low + 3 * ANCESTORS // 4, count)[segments]
        haplotypes[strand] = ancestors[source, np.arange(count)]
    return haplotypes


def draw_gamete(draws: Draws, parent: Bytes, variants: Map) -> Bytes:
    """One recombined haplotype of a parent (Haldane's map function)."""
    recombination = -np.expm1(-2 * variants.gaps / MORGAN) / 2
    strand = np.cumsum(draws.uniform(len(variants.gaps)) < recombination) % 2
    return np.asarray(parent[strand, np.arange(len(strand))])


def draw_genotypes(draws: Draws, people: list[Person], variants: Map) -> Bytes:
    """Copies of the effect allele, (people, variants), before anything is missing."""
    ancestors = draw_ancestors(draws, variants)
    haplotypes = np.empty((len(people), 2, len(variants.gaps)), dtype=np.uint8)
    for i, person in enumerate(people):
        if person.father is None or person.mother is None:
            haplotypes[i] = draw_founder(draws, ancestors, variants, person.population)
        else:
            haplotypes[i, 0] = draw_gamete(draws, haplotypes[person.father], variants)
            haplotypes[i, 1] = draw_gamete(draws, haplotypes[person.mother], variants)
    genotypes = np.asarray(haplotypes.sum(axis=1, dtype=np.uint8))
    genotypes[:, draws.integers(0, len(variants.gaps), MONOMORPHIC)] = 0
    return genotypes


def choose_planted(genotypes: Bytes, variants: Map) -> dict[int, tuple[float, ...]]:
    """Effects by variant: on each chosen chromosome the common variant that is nearest to its middle."""
    frequencies = genotypes.mean(axis=0) / 2
    common = (frequencies > 0.35) & (frequencies < 0.5)
    planted: dict[int, tuple[float, ...]] = {}
    for chromosome, effects in PLANTED.items():
        eligible = common & (np.array(variants.chromosomes) == chromosome)
        distance = np.abs(variants.positions - CHROMOSOMES[chromosome][0] / 2)
        planted[int(np.argmin(np.where(eligible, distance, np.inf)))] = effects
    return planted


def draw_traits(draws: Draws, people: list[Person], genotypes: Bytes, planted: dict[int, tuple[float, ...]]) -> Floats:
    """Trait values, (people, traits), before any is missing."""
    varying = genotypes[:, np.ptp(genotypes, axis=0) > 0].astype(np.float64)
    frequencies = varying.mean(axis=0) / 2
    G = (varying - 2 * frequencies) / np.sqrt(2 * frequencies * (1 - frequencies) * varying.shape[1])
    women = np.array([person.sex == 2 for person in people], dtype=np.float64)
    ages = np.array([person.age for person in people], dtype=np.float64)
    Y = MEANS + np.outer(women, SEX_EFFECTS) + np.outer(ages, AGE_EFFECTS)
    Y += genotypes[:, list(planted)].astype(np.float64) @ np.array(list(planted.values()))
    Y += G @ draws.normal(G.shape[1], len(TRAITS)) @ np.linalg.cholesky(C0).T
    Y += draws.normal(len(people), len(TRAITS)) @ np.linalg.cholesky(C1).T
    return np.asarray(Y)


def draw_missing_genotypes(draws: Draws, people: int, variants: int) -> NDArray[np.bool_]:
    """Which genotypes were not called, (people, variants)."""
    rates = np.full(variants, MISSING_GENOTYPES)
    rates[draws.order(variants)[:BADLY_TYPED]] = MISSING_WHERE_BADLY_TYPED
    return np.asarray(draws.uniform(people, variants) < rates)


def write_bed(path: Path, genotypes: Bytes, missing: NDArray[np.bool_]) -> None:
    """Write a PLINK 1 .bed, variant by variant, two bits a person with the first person lowest."""
    codes = np.array([3, 2, 0], dtype=np.uint8)[genotypes]
    codes[missing] = 1
    padded = np.zeros((genotypes.shape[1], -(-genotypes.shape[0] // 4), 4), dtype=np.uint8)
    padded.reshape(genotypes.shape[1], -1)[:, : genotypes.shape[0]] = codes.T
    packed = np.bitwise_or.reduce(padded << np.array([0, 2, 4, 6], dtype=np.uint8), axis=2)
    path.write_bytes(bytes([0x6C, 0x1B, 0x01]) + packed.astype(np.uint8).tobytes())


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a text file with the same line ends everywhere."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def fam_lines(people: list[Person]) -> list[str]:
    """Lines of the .fam; the traits are elsewhere, so its last column is PLINK's -9."""

    def iid(parent: int | None) -> str:
        return "0" if parent is None else people[parent].iid

    return [f"{p.fid}\t{p.iid}\t{iid(p.father)}\t{iid(p.mother)}\t{p.sex}\t-9" for p in people]


def bim_lines(variants: Map, alleles: list[tuple[str, str]]) -> list[str]:
    """Lines of the .bim, with positions in centimorgan to four decimals."""
    rows = zip(variants.chromosomes, variant_names(variants), variants.positions, alleles, strict=True)
    return [
        f"{chromosome}\t{name}\t{100 * position / MORGAN:.4f}\t{position}\t{effect}\t{other}"
        for chromosome, name, position, (effect, other) in rows
    ]


def variant_names(variants: Map) -> list[str]:
    """Names snp0001, snp0002, ... in the order of the map."""
    return [f"snp{number:04d}" for number in range(1, len(variants.gaps) + 1)]


def draw_alleles(draws: Draws, count: int) -> list[tuple[str, str]]:
    """Effect allele and other allele of each variant."""
    first = draws.integers(0, 4, count)
    second = (first + draws.integers(1, 4, count)) % 4
    return [("ACGT"[i], "ACGT"[j]) for i, j in zip(first, second, strict=True)]


def phenotype_lines(draws: Draws, people: list[Person], Y: Floats) -> list[str]:
    """Lines of phenotypes.csv, in an order of their own, NA where missing."""
    missing = draws.uniform(*Y.shape) < MISSING_PHENOTYPES
    lines = ["FID,IID," + ",".join(TRAITS)]
    for i in draws.order(len(people)):
        cells = [
            "NA" if absent else f"{value:.{decimals}f}"
            for value, absent, decimals in zip(Y[i], missing[i], DECIMALS, strict=True)
        ]
        lines.append(",".join([people[i].fid, people[i].iid, *cells]))
    return lines


def covariate_lines(draws: Draws, people: list[Person]) -> list[str]:
    """Lines of covariates.csv, in a third order: sex as in the .fam, age in years."""
    shuffled = [people[i] for i in draws.order(len(people))]
    return ["FID,IID,sex,age", *(f"{p.fid},{p.iid},{p.sex},{p.age}" for p in shuffled)]


def truth_lines(variants: Map, alleles: list[tuple[str, str]], planted: dict[int, tuple[float, ...]]) -> list[str]:
    """Lines of truth.csv: the planted effects, one line a variant and trait."""
    lines = ["variant,chromosome,position,effect_allele,trait,effect"]
    names = variant_names(variants)
    for variant, effects in planted.items():
        place = f"{variants.chromosomes[variant]},{variants.positions[variant]},{alleles[variant][0]}"
        lines += [
            f"{names[variant]},{place},{trait},{effect:.2f}" for trait, effect in zip(TRAITS, effects, strict=True)
        ]
    return lines


def draw_rare_genotypes(draws: Draws, people: list[Person], count: int) -> Bytes:
    """Copies of the rare alleles, (people, count): those of a gene are passed on together."""
    low, high = RARE_FREQUENCIES
    frequencies = low + (high - low) * draws.uniform(count)
    haplotypes = np.empty((len(people), 2, count), dtype=np.uint8)
    for i, person in enumerate(people):
        if person.father is None or person.mother is None:
            haplotypes[i] = draws.uniform(2, count) < frequencies
            continue
        for strand, parent in enumerate((person.father, person.mother)):
            of_gene = draws.integers(0, 2, count // RARE_VARIANTS)
            haplotypes[i, strand] = haplotypes[parent, np.repeat(of_gene, RARE_VARIANTS), np.arange(count)]
    return np.asarray(haplotypes.sum(axis=1, dtype=np.uint8))


def rare_bim_lines(draws: Draws, names: list[str]) -> list[str]:
    """Lines of rare.bim: the rare allele is the effect allele."""
    starts = [(chromosome, start) for chromosome, all_of_it in GENES.items() for start in all_of_it]
    places = [np.sort(draws.order(GENE_LENGTH)[:RARE_VARIANTS]) + start for _, start in starts]
    rows = [(chromosome, place) for (chromosome, _), some in zip(starts, places, strict=True) for place in some]
    alleles = draw_alleles(draws, len(rows))
    return [
        f"{chromosome}\t{name}\t{100 * place / MORGAN:.4f}\t{place}\t{rare}\t{other}"
        for (chromosome, place), name, (rare, other) in zip(rows, names, alleles, strict=True)
    ]


def gene_lines() -> list[str]:
    """Lines of genes.gff3."""
    starts = [(chromosome, start) for chromosome, all_of_it in GENES.items() for start in all_of_it]
    lines = ["##gff-version 3"]
    for number, (chromosome, start) in enumerate(starts, 1):
        place = f"{chromosome}\tsimulated\tgene\t{start}\t{start + GENE_LENGTH}"
        lines.append(f"{place}\t.\t+\t.\tID=gene{number};Name=GENE{number}")
    return lines


def lipid_lines(draws: Draws, people: list[Person], rare: Bytes, names: list[str]) -> tuple[list[str], list[str]]:
    """Lines of lipids.csv and of rare_truth.csv; relatives share what a pedigree passes on."""
    first = ACTING_GENE * RARE_VARIANTS
    acting = first + np.sort(draws.order(RARE_VARIANTS)[:ACTING_VARIANTS])
    effects = (0.5 + 0.5 * draws.uniform(ACTING_VARIANTS))[:, None] * GENE_EFFECTS * LIPID_SCALES
    genetic = np.empty((len(people), len(LIPIDS)))
    own = draws.normal(len(people), len(LIPIDS)) @ np.linalg.cholesky(GENETIC_CORRELATIONS).T
    for i, person in enumerate(people):
        genetic[i] = own[i]
        if person.father is not None and person.mother is not None:
            genetic[i] = (genetic[person.father] + genetic[person.mother]) / 2 + own[i] * np.sqrt(0.5)
    residual = draws.normal(len(people), len(LIPIDS)) @ np.linalg.cholesky(RESIDUAL_CORRELATIONS).T
    ages = np.array([person.age for person in people], dtype=np.float64)
    Y = (
        LIPID_MEANS
        + 0.2 * LIPID_SCALES * (ages[:, None] - 45) / 20
        + LIPID_SCALES * np.sqrt(0.5) * (genetic + residual)
    )
    Y += rare[:, acting].astype(np.float64) @ effects
    lines = ["FID,IID," + ",".join(LIPIDS)]
    lines += [",".join([p.fid, p.iid, *(f"{value:.2f}" for value in Y[i])]) for i, p in enumerate(people)]
    truth = ["variant,trait,effect"]
    for variant, of_traits in zip(acting, effects, strict=True):
        truth += [f"{names[variant]},{trait},{effect:.3f}" for trait, effect in zip(LIPIDS, of_traits, strict=True)]
    return lines, truth


def simulate_genes(folder: Path, people: list[Person]) -> None:
    """Write the files of rare variants, and of traits that those of one gene act on."""
    draws = Draws(LIPID_SEED)
    count = RARE_VARIANTS * sum(map(len, GENES.values()))
    names = [f"rare{number:02d}" for number in range(1, count + 1)]
    rare = draw_rare_genotypes(draws, people, count)
    write_bed(folder / "rare.bed", rare, np.zeros(rare.shape, dtype=bool))
    write_lines(folder / "rare.fam", fam_lines(people))
    write_lines(folder / "rare.bim", rare_bim_lines(draws, names))
    write_lines(folder / "genes.gff3", gene_lines())
    lipids, truth = lipid_lines(draws, people, rare, names)
    write_lines(folder / "lipids.csv", lipids)
    write_lines(folder / "rare_truth.csv", truth)


def simulate(folder: Path) -> None:
    """Write every data file into a folder."""
    draws = Draws(SEED)
    people = Pedigree(draws).people
    variants = draw_map(draws)
    genotypes = draw_genotypes(draws, people, variants)
    planted = choose_planted(genotypes, variants)
    alleles = draw_alleles(draws, genotypes.shape[1])
    missing = draw_missing_genotypes(draws, *genotypes.shape)
    Y = draw_traits(draws, people, genotypes, planted)
    write_bed(folder / "genotypes.bed", genotypes, missing)
    write_lines(folder / "genotypes.fam", fam_lines(people))
    write_lines(folder / "genotypes.bim", bim_lines(variants, alleles))
    write_lines(folder / "phenotypes.csv", phenotype_lines(draws, people, Y))
    write_lines(folder / "covariates.csv", covariate_lines(draws, people))
    write_lines(folder / "truth.csv", truth_lines(variants, alleles, planted))
    simulate_genes(folder, people)


if __name__ == "__main__":
    simulate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
