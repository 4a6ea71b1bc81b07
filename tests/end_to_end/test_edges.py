"""Data at the edge of what can be computed: singular covariances, determined variants or traits, too little memory."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from example_commands import kron2sum
from numpy.typing import NDArray

from kron2sum_cli.model.spectrum import _eigenvectors_in_place

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_bed(dosages: Array, chromosomes: list[str] | None = None) -> None:
    """``g.bed`` of samples s0, s1, ... and variants v0, v1, ..., with NaN where a genotype is missing."""
    n, m = dosages.shape
    properties = {
        "iid": [f"s{i}" for i in range(n)],
        "sid": [f"v{j}" for j in range(m)],
        "chromosome": chromosomes or ["1"] * m,
        "bp_position": list(range(1, m + 1)),
    }
    to_bed("g.bed", dosages, properties=properties, num_threads=1)


def write_table(path: str, **columns: Array) -> None:
    """A table of samples s0, s1, ..."""
    table = pd.DataFrame(columns)
    table.insert(0, "IID", [f"s{i}" for i in range(len(table))])
    table.to_csv(path, index=False, na_rep="NA")


def exported(null: str) -> dict:
    """The JSON of a null model."""
    assert kron2sum("export", "-q", null, "--to", "json", "--out", "null.json") == 0
    return json.loads(Path("null.json").read_text())


def test_loco_where_the_whole_genomes_fit_is_no_start_for_a_chromosome() -> None:
    """Without a chromosome GGᵀ has fewer variants than samples; the whole genome's C1 is singular."""
    rng = np.random.default_rng(4)
    n, p, m = 80, 3, 96
    dosages = rng.binomial(2, rng.uniform(0.2, 0.5, m), size=(n + 10, m)).astype(float)
    f = dosages.mean(axis=0) / 2
    G = ((dosages - 2 * f) / np.sqrt(2 * f * (1 - f)) / np.sqrt(m))[:n]
    Y = G @ rng.normal(size=(m, p)) + rng.normal(size=(n, p)) * np.sqrt([0.02, 0.5, 0.5])
    write_bed(dosages, list(np.repeat(["1", "2", "3"], m // 3)))
    write_table("y.csv", **{f"t{j}": Y[:, j] for j in range(p)})
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--loco") == 0
    null = exported("null.npz")
    assert null["certificate"]["active_C1"] == 1
    lml = [null["loco"][chromosome]["lml"] for chromosome in "123"]
    # Best of four searches by L-BFGS on factors of C0 and C1, from random starts.
    np.testing.assert_allclose(lml, [-361.899, -351.492, -359.369], atol=1e-3)


def scanned(*options: object) -> pd.DataFrame:
    """The table of a scan, by variant."""
    assert kron2sum("scan", "-q", "--out", "scan.parquet", *options) == 0
    return pd.read_parquet("scan.parquet").set_index("SNPID")


def test_a_variant_that_equals_a_covariate_wherever_it_was_genotyped() -> None:
    """With one genotype missing, at an outlier, the mean in its place gave P = 4e-18."""
    rng = np.random.default_rng(1)
    n, m = 200, 300
    dosages = rng.binomial(2, 0.3, size=(n, m)).astype(float)
    sex = rng.integers(0, 2, n)
    dosages[:, 0] = dosages[:, 1] = 2 * sex
    dosages[5, [0, 2]] = np.nan
    Y = rng.normal(size=(n, 2)) + sex[:, None]
    Y[5] += 7
    write_bed(dosages)
    write_table("y.csv", a=Y[:, 0], b=Y[:, 1])
    write_table("c.csv", sex=sex)
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--covar", "c.csv", "--grm", "g.bed", "--grm-maf", "0.05") == 0
    chisq = scanned("--refit", 0).CHISQ
    assert list(np.flatnonzero(chisq.isna())) == [0, 1]
    Path("sets.txt").write_text("with v0 v1 v2 v3\nwithout v2 v3\nalone v0\n")
    assert (
        kron2sum("scan", "-q", "--sets", "sets.txt", "--set-test", "fixed", "--set-test", "skat", "--out", "s.csv") == 0
    )
    sets = pd.read_csv("s.csv", index_col="SET")
    statistics = ["DF", "CHISQ", "MLOG10P", "MLOG10P_SET.skat"]
    assert sets.loc["with", statistics].equals(sets.loc["without", statistics])
    assert list(sets.NVAR) == [2, 2, 0] and list(sets.NVAR_LEFT_OUT) == [2, 0, 1]


@pytest.mark.parametrize("missing", ["drop", "exact"])
def test_a_variant_that_equals_a_given_one_wherever_that_was_genotyped(missing: str) -> None:
    """Its effect would be that of the sample in which the given one is imputed, here an outlier."""
    rng = np.random.default_rng(41)
    n = 120
    dosages = rng.binomial(2, 0.3, size=(n, 200)).astype(float)
    dosages[:, 1], dosages[:, 2] = dosages[:, 0], 2 - dosages[:, 0]
    dosages[5, 0] = dosages[9, 2] = np.nan
    Y = rng.normal(size=(n, 2))
    Y[5] += 7
    if missing == "exact":
        Y[20:40, 0] = np.nan
    write_bed(dosages)
    write_table("y.csv", a=Y[:, 0], b=Y[:, 1])
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--missing", missing) == 0
    chisq = scanned("--refit", 0, "--condition", "v0").CHISQ
    assert list(np.flatnonzero(chisq.isna())) == [0, 1, 2]
    Path("sets.txt").write_text("all v0 v1 v2 v3\nalone v1\n")
    assert kron2sum("scan", "-q", "--sets", "sets.txt", "--condition", "v0", "--out", "s.csv") == 0
    sets = pd.read_csv("s.csv", index_col="SET")
    assert list(sets.NVAR) == [1, 0] and sets.MLOG10P["all"] < 3


@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_variant_that_determines_a_trait_leads(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    """A 0/1 trait of inbred lines, its variant and a neighbour in linkage disequilibrium."""
    rng = np.random.default_rng(39)
    n, m = 200, 600
    dosages = 2.0 * (rng.random((n, m)) < rng.uniform(0.1, 0.5, m))
    dosages[:, 11] = np.where(rng.random(n) < 0.06, 2 - dosages[:, 10], dosages[:, 10])
    write_bed(dosages)
    write_table("y.csv", colour=dosages[:, 10] // 2)
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed") == 0
    table = scanned("--refit", 0, "--precision", precision)
    assert "1 variant that explains the traits completely (statistics at the limit of the precision)" in caplog.text
    assert list(table.MLOG10P.nlargest(2).index) == ["v10", "v11"]
    assert table.MLOG10P["v10"] > 400 and np.isfinite(table.MLOG10P["v10"])
    assert table["BETA.colour"]["v10"] == pytest.approx(0.5, rel=1e-5)
    assert 0 < table["SE.colour"]["v10"] < 4e-3 * table["SE.colour"].median()
    assert kron2sum("export", "-q", "--leads", "--out", "leads.tsv") == 0
    assert pd.read_csv("leads.tsv", sep="\t").SNPID[0] == "v10"


@pytest.mark.parametrize("combined", [False, True])
def test_no_refit_of_a_variant_that_determines_one_of_two_traits(
    combined: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its likelihood grows without bound; a refit reported what rounding left of it, or did not converge."""
    rng = np.random.default_rng(5)
    n, m = 120, 300
    dosages = rng.binomial(2, rng.uniform(0.1, 0.5, m), size=(n, m)).astype(float)
    a, b = dosages[:, 10], 2 * dosages[:, 10] + 0.5 * rng.normal(size=n)
    write_bed(dosages)
    write_table("y.csv", a=a + b if combined else a, b=b)
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed") == 0
    table = scanned()
    assert "1 variant that explains a trait, or a combination of traits, completely (not refitted)" in caplog.text
    assert "did not converge" not in caplog.text
    assert table.MLOG10P.idxmax() == "v10" and np.isnan(table.MLOG10P_REFIT["v10"])


@pytest.mark.usefixtures("few_simulated_traits")
def test_refits_of_traits_of_different_unrelated_samples() -> None:
    """Nothing is known of their residual covariance; two regressions apart are the likelihood ratio."""
    rng = np.random.default_rng(148)
    n, m = 120, 30
    dosages = rng.binomial(2, 0.3, size=(n, m)).astype(float)
    Y = rng.normal(size=(n, 2)) + dosages[:, [3, 4]]
    Y[::2, 0] = Y[1::2, 1] = np.nan
    write_bed(dosages)
    write_table("y.csv", a=Y[:, 0], b=Y[:, 1])
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "none", "--missing", "exact") == 0
    table = scanned("--geno", "g.bed", "--refit", 1, "--precision", "double", "--test", "only:a")
    apart = []
    for y in Y.T:
        seen = ~np.isnan(y)
        G, rest = dosages[seen] - dosages[seen].mean(axis=0), y[seen] - y[seen].mean()
        left = rest @ rest - (G.T @ rest) ** 2 / np.sum(G**2, axis=0)
        apart.append((seen.sum() - 1) * np.log(rest @ rest / left))
    for suffix, expected in (("", sum(apart)), (".only:a", apart[0])):
        factor = expected / table["CHISQ_REFIT" + suffix].to_numpy()
        np.testing.assert_allclose(factor, factor[3], rtol=1e-5)  # one Bartlett factor a test
        assert 1 < factor[3] < 1.1


def test_a_covariate_that_is_redundant_in_the_samples_of_one_trait(caplog: pytest.LogCaptureFixture) -> None:
    """Trait b was not measured in the first of three waves, so that the others add up to its intercept."""
    rng = np.random.default_rng(22)
    n = 120
    write_bed(rng.binomial(2, 0.3, size=(n, 300)).astype(float))
    wave, Y = rng.integers(1, 4, n), rng.normal(size=(n, 2))
    write_table("y.csv", a=Y[:, 0], b=np.where(wave == 1, np.nan, Y[:, 1]))
    write_table("c.csv", wave=np.char.add("w", wave.astype(str)))
    fit = ("fit", "--pheno", "y.csv", "--covar", "c.csv", "--cat-covar", "wave", "--grm", "g.bed", "--missing", "exact")
    assert kron2sum(*fit) == 1
    assert kron2sum(*fit, "--drop-redundant", "--predict") == 0
    assert "covariate wave=w3 is a linear combination of intercept, wave=w2: its effect on b is left out" in caplog.text
    null = exported("null.npz")
    assert null["B"][2][1] == 0 and null["B_se"][2][1] is None
    assert None not in null["B_se"][0] + null["B_se"][1] + null["C1_se"][0]
    assert scanned("--refit", 0).CHISQ.notna().all()


def test_a_trait_in_the_span_of_few_variants_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    """No samples have the same genotypes, and none need to be left out."""
    rng = np.random.default_rng(39)
    dosages = 2.0 * (rng.random((120, 60)) < 0.3)
    write_bed(dosages)
    write_table("y.csv", colour=dosages[:, 10] // 2)
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed") == 3
    message = capsys.readouterr().err
    assert "such as a trait that one variant of the relationship matrix determines" in message
    assert "same genotypes" not in message


def test_options_of_genotypes_are_refused_with_a_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that was typed is left aside without a word."""
    write_table("y.csv", a=np.random.default_rng(1).normal(size=6))
    np.save("k.npy", np.eye(6))
    Path("ids").write_text("".join(f"s{i}\n" for i in range(6)))
    fit = ("fit", "--pheno", "y.csv", "--grm", "k.npy", "--grm-id", "ids", "--grm-maf", "0.05", "--ploidy", "4")
    assert kron2sum(*fit) == 2
    message = capsys.readouterr().err
    assert "k.npy: is a relationship matrix, and --grm-maf, --ploidy are for genotypes" in message


@pytest.mark.parametrize(("m", "noise"), [(60, 0.003), (12, 0.05)])
@pytest.mark.parametrize("missing", [(), ("--missing", "exact")], ids=["complete", "missing"])
def test_traits_that_are_wholly_genetic_in_single_precision(missing: tuple[str, ...], m: int, noise: float) -> None:
    """C1 is next to nothing and GGᵀ singular: the rows outside it have a weight that single precision cannot carry."""
    rng = np.random.default_rng(1)
    dosages = rng.binomial(2, 0.3, size=(70, m)).astype(float)
    write_bed(dosages)
    Y = (dosages - dosages.mean(axis=0)) @ rng.normal(size=(m, 2)) + noise * rng.normal(size=(70, 2))
    if missing:
        Y[:4, 0] = np.nan
    write_table("y.csv", a=Y[:, 0], b=Y[:, 1])
    assert kron2sum("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--ml", *missing) == 0
    for given in ((), ("--condition", "v4")):
        tables: list[pd.DataFrame] = []
        for precision in ("single", "double"):
            assert kron2sum("scan", "-q", "--refit", "0", *given, "--precision", precision) == 0
            tables.append(pd.read_parquet("scan.parquet").select_dtypes("number"))
        np.testing.assert_allclose(tables[0]["MLOG10P"], tables[1]["MLOG10P"], rtol=0, atol=5e-5)
        np.testing.assert_allclose(
            tables[0]["BETA.a"], tables[1]["BETA.a"], rtol=0, atol=5e-5 * tables[1]["SE.a"].max()
        )


def write_many_samples(n: int, variants: int) -> None:
    """Genotypes of four chromosomes, and two traits."""
    rng = np.random.default_rng(5)
    chromosomes = [str(1 + j * 4 // variants) for j in range(variants)]
    write_bed(rng.binomial(2, 0.4, (n, variants)).astype(float), chromosomes)
    write_table("y.csv", a=rng.standard_normal(n), b=rng.standard_normal(n))


def test_a_dense_matrix_beyond_the_memory_is_refused_before_it_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many_samples(600, 700)
    fit = ("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--out", "n.npz")
    with monkeypatch.context() as patched:
        patched.setattr("kron2sum_cli.fit.relationship.relationship_from_genotypes", None)
        patched.setattr("kron2sum_cli.fit.relationship.relationships_by_chromosome", None)
        # 180 MiB and five matrices of 600 x 600, one more with --loco or --predict
        for options, needed in ((), 193), (("--loco",), 196), (("--predict",), 196), (("--missing", "exact"), 193):
            assert kron2sum(*fit, "--memory", needed - 1, *options) == 1
            said = capsys.readouterr().err
            assert (
                f"600 samples needs some {needed} MiB for the fit, and --memory allows {needed - 1} MiB; allow" in said
            )
        patched.setattr("kron2sum_cli.fit.design.available_memory_mib", lambda: 190)
        assert kron2sum(*fit) == 1
        assert "needs some 193 MiB for the fit, and the machine has 190 MiB" in capsys.readouterr().err
    assert not Path("n.npz").exists()
    assert kron2sum(*fit, "--memory", 193) == 0


def test_memory_counts_the_variants_of_the_matrix_where_they_are_fewer_than_samples() -> None:
    write_many_samples(600, 700)
    names = [line.split()[1] for line in Path("g.bim").read_text().splitlines()]
    Path("few.txt").write_text("\n".join(names[:200]))
    fit = ("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--memory", 185)
    assert kron2sum(*fit) == 1
    assert kron2sum(*fit, "--grm-extract", "few.txt") == 0
    assert kron2sum(*fit, "--grm-cutoff", "0.3") == 0
    write_many_samples(4000, 50)  # 3 MiB, where five matrices of 4000 x 50 would have 8
    assert kron2sum(*fit) == 0


def test_one_decomposed_matrix_at_a_time_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    n, in_memory = 500, []

    def decomposed(K: Array) -> Array:
        in_memory.append(tracemalloc.get_traced_memory()[0])
        return _eigenvectors_in_place(K)

    write_many_samples(n, 600)
    monkeypatch.setattr("kron2sum_cli.model.spectrum._eigenvectors_in_place", decomposed)
    fit = ("fit", "-q", "--pheno", "y.csv", "--grm", "g.bed", "--loco")
    assert kron2sum(*fit) == 0  # all libraries are loaded
    tracemalloc.start()
    in_memory.clear()
    assert kron2sum(*fit) == 0
    tracemalloc.stop()
    assert len(in_memory) == 5 and max(in_memory) < in_memory[0] + 8 * n**2 / 2
