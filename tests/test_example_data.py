"""The example data are what their script makes and what their README says."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bed_reader import open_bed
from numpy.typing import NDArray
from scipy import stats

FOLDER = Path(__file__).parent.parent / "example_data"
DATA = ("genotypes.bed", "genotypes.bim", "genotypes.fam", "phenotypes.csv", "covariates.csv", "truth.csv")
RARE = ("rare.bed", "rare.bim", "rare.fam", "genes.gff3", "lipids.csv", "rare_truth.csv")
TRAITS = ("height", "weight", "glucose")


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, simulated once more."""
    folder = tmp_path_factory.mktemp("example_data")
    subprocess.run([sys.executable, str(FOLDER / "simulate.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def genotypes() -> NDArray[np.float64]:
    """Copies of the effect allele, (398, 3000), NaN where missing, as another program reads them."""
    with open_bed(FOLDER / "genotypes.bed") as bed:
        return np.asarray(bed.read(dtype="float64"))


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fields(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (FOLDER / name).read_text().splitlines()]


def people_in_order(name: str, columns: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns of a table with its rows in the order of the .fam."""
    by_iid = {row["IID"]: [float(row[column]) for column in columns] for row in rows(name)}
    return np.array([by_iid[fam[1]] for fam in fields("genotypes.fam")])


@pytest.mark.parametrize("name", DATA + RARE)
def test_the_script_makes_the_same_bytes(again: Path, name: str) -> None:
    assert (again / name).read_bytes() == (FOLDER / name).read_bytes()


def test_the_script_makes_all_files_of_the_folder(again: Path) -> None:
    assert {path.name for path in again.iterdir()} == set(DATA + RARE)
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 2_000_000


def test_variants(genotypes: NDArray[np.float64]) -> None:
    missing = np.isnan(genotypes).mean(axis=0)
    assert genotypes.shape == (398, 3000)
    assert len({bim[1] for bim in fields("genotypes.bim")}) == 3000
    assert {bim[0] for bim in fields("genotypes.bim")} == {"1", "2", "3", "4", "5"}
    assert (np.nanstd(genotypes, axis=0) == 0).sum() == 5
    assert (missing > 0.05).sum() == 6
    assert missing.mean() == pytest.approx(0.01, rel=0.05)


def test_positions_increase_on_each_chromosome() -> None:
    places = [(int(bim[0]), int(bim[3])) for bim in fields("genotypes.bim")]
    assert places == sorted(set(places))


def test_the_files_name_the_same_people_in_different_orders() -> None:
    fam = [(line[0], line[1]) for line in fields("genotypes.fam")]
    phenotypes, covariates = ([(r["FID"], r["IID"]) for r in rows(n)] for n in DATA[3:5])
    assert set(fam) == set(phenotypes) == set(covariates)
    assert len(fam) == len(phenotypes) == len(covariates) == 398
    assert len({fid for fid, _ in fam}) == 92
    assert fam != phenotypes != covariates != fam


def test_some_phenotypes_are_missing() -> None:
    assert sum(row[trait] == "NA" for row in rows("phenotypes.csv") for trait in TRAITS) == 33


def test_neighbours_are_in_linkage_disequilibrium(genotypes: NDArray[np.float64]) -> None:
    founders = [fam[2] == "0" for fam in fields("genotypes.fam")]
    mean = np.nanmean(genotypes, axis=0)
    g = np.where(np.isnan(genotypes), mean, genotypes)[founders]
    g = g[:, g.std(axis=0) > 0]
    g = (g - g.mean(axis=0)) / g.std(axis=0)
    neighbours = (g[:, 1:] * g[:, :-1]).mean(axis=0) ** 2
    far_apart = (g[:, 1500:] * g[:, : g.shape[1] - 1500]).mean(axis=0) ** 2
    assert neighbours.mean() > 0.15
    assert far_apart.mean() < 0.01


def test_children_have_an_allele_of_each_parent(genotypes: NDArray[np.float64]) -> None:
    fam = fields("genotypes.fam")
    place = {line[1]: i for i, line in enumerate(fam)}
    trios = np.array([[i, place[f[2]], place[f[3]]] for i, f in enumerate(fam) if f[2] != "0"])
    child, father, mother = genotypes[trios.T]
    least = (father == 2).astype(int) + (mother == 2)
    most = (father > 0).astype(int) + (mother > 0)
    known = ~np.isnan(child + father + mother)
    assert len(trios) == 233
    assert ((least <= child) & (child <= most))[known].all()
    assert {fam[i][4] for i in trios[:, 1]} == {"1"}
    assert {fam[i][4] for i in trios[:, 2]} == {"2"}


def test_the_readme_tells_the_truth() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    truth = rows("truth.csv")
    for variant in dict.fromkeys(row["variant"] for row in truth):
        planted = [row for row in truth if row["variant"] == variant]
        place = [planted[0][key] for key in ("variant", "chromosome", "position", "effect_allele")]
        assert [row["trait"] for row in planted] == list(TRAITS)
        assert "| " + " | ".join([*place, *(row["effect"] for row in planted)]) + " |" in readme


def test_planted_effects_show_in_a_plain_regression(genotypes: NDArray[np.float64]) -> None:
    values = np.array([[row[trait] for trait in TRAITS] for row in rows("phenotypes.csv")])
    by_iid = dict(zip((row["IID"] for row in rows("phenotypes.csv")), values, strict=True))
    fam, bim = fields("genotypes.fam"), fields("genotypes.bim")
    Y = np.array([np.where(by_iid[f[1]] == "NA", "nan", by_iid[f[1]]) for f in fam]).astype(float)
    X = np.column_stack([np.ones(len(fam)), people_in_order("covariates.csv", ("sex", "age"))])
    names = [line[1] for line in bim]
    for row in rows("truth.csv"):
        variant, trait = names.index(row["variant"]), TRAITS.index(row["trait"])
        assert bim[variant][4] == row["effect_allele"]
        beta, p = regress(Y[:, trait], X, genotypes[:, variant])
        if float(row["effect"]) != 0:
            assert np.sign(beta) == np.sign(float(row["effect"]))
            assert p < 0.01


def regress(y: NDArray[np.float64], X: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float]:
    """Effect of g on y given X by least squares, and its p-value."""
    known = ~np.isnan(y + g)
    M = np.column_stack([X, g])[known]
    inverse = np.linalg.inv(M.T @ M)
    beta = inverse @ M.T @ y[known]
    rest = y[known] - M @ beta
    freedom = len(rest) - M.shape[1]
    t = beta[-1] / np.sqrt(inverse[-1, -1] * (rest @ rest) / freedom)
    return float(beta[-1]), float(2 * stats.t.sf(abs(t), freedom))
