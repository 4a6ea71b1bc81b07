"""Scans of example_data from end to end: against the model's own classes, the truth, and each other."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dense_scan import dense_projection, variant
from example_commands import EXAMPLE, kron2sum, metadata, scan, table
from scipy import stats

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.null_file import read_null
from kron2sum_cli.genotypes.bed import open_bed
from kron2sum_cli.model.contrasts import rotate_traits
from kron2sum_cli.model.fitting import climb
from kron2sum_cli.model.spectrum import spectrum_of_relationship
from kron2sum_cli.scan.block import block_width
from kron2sum_cli.scan.inputs import open_inputs
from kron2sum_cli.settings import CommonSettings, ScanSettings


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_every_number_of_a_row_equals_the_dense_gaussian(example: Path, tmp_path: Path, null: str) -> None:
    tests = ("common", "specific", "only:weight", "trait:height|weight")
    options = [word for name in tests for word in ("--test", name)]
    out = tmp_path / "s.parquet"
    assert scan(example / null, out, "--precision", "double", "--refit", "0", *options) == 0
    rows = table(tmp_path / "s.parquet")
    designs = {
        "": (np.eye(3), None),
        ".common": (np.ones((3, 1)), None),
        ".specific": (np.eye(3), np.ones((3, 1))),
        ".only:weight": (np.eye(3)[:, [1]], None),
        ".trait:height|weight": (np.eye(3)[:, [0, 2]], np.eye(3)[:, [2]]),
    }
    for index in (0, 700, 2900):
        row = rows.iloc[index]
        y, P, size = dense_projection(example / null, row.CHR if null == "loco.npz" else None)
        g, q0 = variant(example / null, index), y @ P @ y

        def drop(A1, g=g, P=P, y=y):
            M1 = np.kron(A1, g[:, None])
            u = M1.T @ P @ y
            return u @ np.linalg.solve(M1.T @ P @ M1, u)

        for suffix, (full, base) in designs.items():
            below = 0.0 if base is None else drop(base)
            expected = size * np.log((q0 - below) / (q0 - drop(full)))
            assert row["CHISQ" + suffix] == pytest.approx(expected, rel=1e-6, abs=1e-8), suffix
        M1 = np.kron(np.eye(3), g[:, None])
        covariance = np.linalg.inv(M1.T @ P @ M1)
        beta = covariance @ M1.T @ P @ y
        scale = (q0 - drop(np.eye(3))) / size
        for j, trait in enumerate(("height", "weight", "glucose")):
            assert row[f"BETA.{trait}"] == pytest.approx(beta[j], rel=1e-6)
            assert row[f"SE.{trait}"] == pytest.approx(np.sqrt(scale * covariance[j, j]), rel=1e-6)


def test_planted_variants_are_found_with_their_effects(example: Path) -> None:
    rows = table(example / "scan.parquet").set_index("SNPID")
    with open(EXAMPLE / "truth.csv") as file:
        truth = list(csv.DictReader(file))
    for effect in truth:
        row = rows.loc[effect["SNPID" if "SNPID" in effect else "variant"]]
        assert row.MLOG10P > 7
        trait, value = effect["trait"], float(effect["effect" if "effect" in effect else "beta"])
        assert abs(row[f"BETA.{trait}"] - value) < 4 * row[f"SE.{trait}"]


def test_single_precision_stays_close_to_double(example: Path, tmp_path: Path) -> None:
    assert scan(example / "null.npz", tmp_path / "double.parquet", "--precision", "double", "--refit", "0") == 0
    single, double = table(example / "scan.parquet"), table(tmp_path / "double.parquet")
    assert np.nanmax(np.abs(single.MLOG10P - double.MLOG10P)) < 1e-4


def test_threads_change_no_byte_of_a_null_model(tmp_path: Path) -> None:
    nulls = [tmp_path / f"{threads}.npz" for threads in (1, 2, 3)]
    for threads, null in enumerate(nulls, 1):
        files = ("--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed", "--grm-maf", "0.45")
        assert kron2sum("fit", *files, "--threads", str(threads), "--out", null) == 0
    assert len({null.read_bytes() for null in nulls}) == 1


@pytest.mark.usefixtures("few_simulated_traits")
@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_threads_shards_and_regions_change_no_byte(example: Path, tmp_path: Path, null: str) -> None:
    options = ("--test", "common", "--refit", "1e-3")
    whole = tmp_path / "whole.parquet"
    assert scan(example / null, whole, *options, "--threads", "1") == 0
    shards = [tmp_path / f"shard{i}.parquet" for i in (1, 2, 3)]
    for i, shard in enumerate(shards):
        assert scan(example / null, shard, *options, "--shard", f"{i + 1}/3", "--threads", "3") == 0
    chromosomes = [tmp_path / f"chr{k}.parquet" for k in (1, 2)]
    for path, choice in zip(chromosomes, ("1-3", "4,5"), strict=True):
        assert scan(example / null, path, *options, "--chr", choice, "--threads", "2") == 0
    for parts in (shards, chromosomes):
        merged = tmp_path / "merged.parquet"
        assert kron2sum("export", "-q", *parts[::-1], "--to", "parquet", "--out", merged) == 0
        assert merged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("null", ["null.npz", "loco.npz"])
def test_later_tests_equal_those_of_a_scan(example: Path, tmp_path: Path, null: str) -> None:
    (tmp_path / "c.csv").write_text("trait,a,b\nheight,1,0\nweight,1,1\nglucose,0,1\n")
    (tmp_path / "c0.csv").write_text("trait,x\nheight,1\nweight,1\nglucose,1\n")
    tests = ["common", "specific", "trait:height", "only:glucose", "axis:2", f"mine={tmp_path / 'c.csv'}"]
    tests.append(f"nested={tmp_path / 'c0.csv'},{tmp_path / 'c.csv'}")
    options = [word for test in tests for word in ("--test", test)]
    assert scan(example / null, tmp_path / "now.parquet", "--refit", "0", *options) == 0
    assert scan(example / null, tmp_path / "bare.parquet", "--refit", "0") == 0
    later = tmp_path / "later.parquet"
    assert kron2sum("export", "-q", tmp_path / "bare.parquet", *options, "--to", "parquet", "--out", later) == 0
    now, later_rows = table(tmp_path / "now.parquet"), table(later)
    columns = [name for name in now if name.startswith(("CHISQ", "DF", "MLOG10P"))]
    assert len(columns) > 20
    for name in columns:
        np.testing.assert_allclose(later_rows[name], now[name], rtol=1e-9, atol=1e-9)


def test_a_later_test_is_never_mistaken_for_another_of_its_name(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither for a contrast from another file, nor for a trait, nor for a part of nested designs."""
    contrasts = [tmp_path / folder / "c.csv" for folder in "ab"]
    for path, text in zip(contrasts, ("height,1\nweight,0\nglucose,0", "height,0\nweight,1\nglucose,0"), strict=True):
        path.parent.mkdir()
        path.write_text(f"trait,x\n{text}\n")
    a, b = contrasts
    table_of_a, again = tmp_path / "a.parquet", tmp_path / "again.parquet"
    assert scan(example / "null.npz", table_of_a, "--refit", "0", "--chr", "5", "--test", f"my={a}") == 0
    assert kron2sum("export", "-q", table_of_a, "--test", f"my={a}", "--to", "parquet", "--out", again) == 0
    assert pq.read_table(again).equals(pq.read_table(table_of_a))
    for tests, name in (([f"my={b}"], "my"), ([f"height={b}"], "height"), ([f"n.h1={a}", f"n={a},{b}"], "n.h1")):
        capsys.readouterr()
        options = [word for test in tests for word in ("--test", test)]
        assert kron2sum("export", "-q", table_of_a, *options) == 2
        assert f"rename the trait or test {name}\n" in capsys.readouterr().err
    (tmp_path / "sets.txt").write_text("one snp0001\n")
    sets = ("--sets", tmp_path / "sets.txt", "--test", f"n.h1={a}", "--test", f"n={a},{b}")
    assert scan(example / "null.npz", tmp_path / "sets.parquet", *sets) == 2


def test_later_columns_that_a_table_has_in_part_are_completed(example: Path, tmp_path: Path) -> None:
    """Covariances that it has already are not there twice."""
    whole, part, later = (tmp_path / f"{name}.parquet" for name in ("whole", "part", "later"))
    columns = "CHR,BETA.*,AXIS.*,MLOG10P.common,cov"
    assert scan(example / "null.npz", whole, "--refit", "0", "--chr", "5", "--test", "common") == 0
    assert kron2sum("export", "-q", whole, "--columns", columns, "--to", "parquet", "--out", part) == 0
    options = ("--test", "common", "--columns", "CHISQ.common,MLOG10P.common,cov", "--to", "parquet")
    assert kron2sum("export", "-q", part, *options, "--out", later) == 0
    found = table(later)
    assert len(found.columns) == 2 + 6
    np.testing.assert_allclose(found["CHISQ.common"], table(whole)["CHISQ.common"], rtol=1e-9)


def test_the_library_tests_a_finished_scan_as_its_page_says(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.csv").write_text("trait,x\nheight,1\nweight,1\nglucose,0\n")
    later = tmp_path / "later.parquet"
    options = ("--test", f"mine={tmp_path / 'c.csv'}", "--to", "parquet", "--out", later)
    assert kron2sum("export", "-q", example / "scan.parquet", *options) == 0
    page = (EXAMPLE.parent / "docs" / "reference" / "python.md").read_text()
    block = page.partition("```python\n")[2].partition("```")[0]
    *lines, last = block.strip().splitlines()
    monkeypatch.chdir(example)
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    np.testing.assert_array_equal(eval(last, names), table(later)["MLOG10P.mine"])


def test_p_of_any_test_is_a_column_when_it_is_asked_for(example: Path, tmp_path: Path) -> None:
    names = ["P.height", "P.common", "P.only:weight"]
    columns = ("--columns", ",".join([*names, "BETA.height", "SE.height", "CHISQ.common", "CHISQ.only:weight"]))
    out = tmp_path / "p.parquet"
    assert kron2sum("export", "-q", example / "scan.parquet", "--test", "only:weight", *columns, "--out", out) == 0
    found = table(out)
    assert list(found)[:3] == names
    for name in names[1:]:
        np.testing.assert_allclose(found[name], stats.chi2.sf(found[f"CHISQ{name[1:]}"], 1), rtol=1e-9)
    wald = stats.chi2.sf((found["BETA.height"] / found["SE.height"]) ** 2, 1)
    np.testing.assert_allclose(found["P.height"], wald, atol=0.005)
    bare = ("--columns", "SNPID,P.height")
    assert kron2sum("export", "-q", example / "scan.parquet", *bare, "--out", tmp_path / "bare.parquet") == 0
    np.testing.assert_array_equal(table(tmp_path / "bare.parquet")["P.height"], found["P.height"])


def test_f_statistic_is_exact_where_the_likelihood_ratio_is_not(example: Path, tmp_path: Path) -> None:
    assert scan(example / "null.npz", tmp_path / "f.parquet", "--stat", "f", "--refit", "0") == 0
    f, lr = table(tmp_path / "f.parquet"), table(example / "scan.parquet")
    np.testing.assert_array_equal(f.CHISQ, lr.CHISQ)
    varied = lr.MLOG10P > 0.3
    assert (f.MLOG10P[varied] < lr.MLOG10P[varied]).all()


@pytest.mark.usefixtures("few_simulated_traits")
def test_an_interrupted_scan_goes_on_to_the_same_bytes(example: Path, tmp_path: Path, monkeypatch) -> None:
    from kron2sum_cli.scan import scan as module

    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    options = ("--memory", "340", "--threads", "1")
    assert scan(example / "null.npz", whole, *options) == 0
    seen = []

    def failing(plan, block, work=module.test_block):
        seen.append(block)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return work(plan, block)

    with monkeypatch.context() as patch:
        patch.setattr(module, "test_block", failing)
        scan(example / "null.npz", out, *options)
    assert not out.exists()
    blocks = list(tmp_path.glob(".out.parquet.kron2sum-blocks"))
    assert blocks, "finished blocks are kept"
    other = scan(example / "null.npz", out, *options, "--resume", "--test", "common")
    assert other == 1, "another question is not the same scan"
    assert scan(example / "null.npz", out, *options, "--resume") == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".out*"))


def test_sets_equal_the_joint_dense_test(
    example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["snp0001", "snp0002", "snp0003", "snp0002"]
    (tmp_path / "sets.txt").write_text(f"one {names[0]}\nthree {' '.join(names[1:])},{names[0]}\nnone nothing\n")
    out = tmp_path / "sets.parquet"
    options = ("--sets", tmp_path / "sets.txt", "--test", "common", "--refit", "0.5")
    assert scan(example / "null.npz", out, *options) == 0
    assert "1 member of sets is no variant of the scan, such as nothing of set none" in caplog.text
    assert "--refit 0.5: sets of variants are not refitted" in caplog.text
    assert metadata(out)["settings"]["refit"] == 0
    assert kron2sum("export", "-q", out, "--test", "specific") == 1
    assert "give --test to kron2sum scan --sets" in capsys.readouterr().err
    rows, singles = table(out).set_index("SET"), table(example / "scan.parquet").set_index("SNPID")
    assert pytest.approx(singles.loc["snp0001"].CHISQ, rel=1e-4) == rows.loc["one"].CHISQ
    ids = list(singles.index)
    y, P, size = dense_projection(example / "null.npz", None)
    G = np.column_stack([variant(example / "null.npz", ids.index(name)) for name in names[:3]])
    for suffix, A1 in (("", np.eye(3)), (".common", np.ones((3, 1)))):
        M1 = np.kron(A1, G)
        u = M1.T @ P @ y
        chisq = u @ np.linalg.solve(M1.T @ P @ M1, u)
        expected = size * np.log(y @ P @ y / (y @ P @ y - chisq))
        assert rows.loc["three"]["CHISQ" + suffix] == pytest.approx(expected, rel=1e-6)
    assert rows.loc["three"].DF == 9
    assert rows.loc["none"].NVAR == 0
    assert np.isnan(rows.loc["none"].CHISQ)


def test_a_set_with_as_many_effects_as_values_has_no_statistics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it leaves of the traits is rounding."""
    people = [line.split()[:2] for line in (EXAMPLE / "genotypes.fam").read_text().splitlines()[:60]]
    (tmp_path / "keep.txt").write_text("".join(f"{fid} {iid}\n" for fid, iid in people))
    regions = [f"r{k}.{end} {k}:1-{end}000000\n" for k in (1, 2, 3) for end in (3, 12, 18, 30)]
    (tmp_path / "sets.txt").write_text("".join(regions) + "one snp0002\n")
    null, out = tmp_path / "null.npz", tmp_path / "sets.parquet"
    assert kron2sum("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed",
                    "--keep", tmp_path / "keep.txt", "--out", null) == 0  # fmt: skip
    for stat in ("lr", "f"):
        assert scan(null, out, "--sets", tmp_path / "sets.txt", "--stat", stat) == 0
        rows = table(out)
        values = 3 * (len(read_null(str(null)).samples) - 1)
        whole = values <= rows.DF
        assert 0 < whole.sum() < len(whole)
        assert rows.loc[whole, ["CHISQ", "P", "MLOG10P"]].isna().all(axis=None)
        assert rows.loc[~whole, ["CHISQ", "P", "MLOG10P"]].notna().all(axis=None)
        assert f"{whole.sum()} sets that explain the traits completely (empty statistics)" in caplog.text
        many = rows.loc[~whole, "DF"].map(lambda d, N=values: -N * np.log(1 - d / N) - d > 0.3 * np.sqrt(2 * d))
        said = f"{many.sum()} sets have so many effects for the values that χ² makes P of fixed too small; use --stat f"
        assert 0 < many.sum() < len(many) and (said in caplog.text) == (stat == "lr")
        caplog.clear()


@pytest.mark.usefixtures("few_simulated_traits")
def test_a_trait_design_of_lower_rank_gives_the_dense_test(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "A.csv").write_text("trait,x,y\nheight,1,0.5\nweight,1,-1\nglucose,1,0\n")
    null = tmp_path / "coupled.npz"
    assert kron2sum("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed",
                    "--trait-design", tmp_path / "A.csv", "--out", null) == 0  # fmt: skip
    assert scan(null, tmp_path / "s.parquet", "--test", "common") == 0
    assert "depend on which allele is counted" in capsys.readouterr().err
    assert metadata(tmp_path / "s.parquet")["null"]["reduced"]
    assert scan(null, tmp_path / "sets.parquet", "--windows", "20mb", "--chr", "5") == 0
    of_sets = capsys.readouterr().err
    assert "depend on which allele is counted" in of_sets and "no variants are refitted" not in of_sets
    rows = table(tmp_path / "s.parquet")
    y, P, size = dense_projection(null, None)
    for index in (0, 2900):
        g = variant(null, index)
        for suffix, A1 in (("", np.eye(3)), (".common", np.ones((3, 1)))):
            M1 = np.kron(A1, g[:, None])
            u = M1.T @ P @ y
            chisq = u @ np.linalg.solve(M1.T @ P @ M1, u)
            expected = size * np.log(y @ P @ y / (y @ P @ y - chisq))
            assert rows.iloc[index]["CHISQ" + suffix] == pytest.approx(expected, rel=1e-6)
    assert "AXIS.2.1" in rows


def test_loco_uses_the_null_of_every_chromosome(
    example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert scan(example / "loco.npz", tmp_path / "loco.parquet", "--refit", "0") == 0
    nulls = metadata(tmp_path / "loco.parquet")["nulls"]
    assert [record["chromosome"] for record in nulls] == [None, "1", "2", "3", "4", "5"]
    whole, loco = table(example / "scan.parquet"), table(tmp_path / "loco.parquet")
    assert scan(example / "loco.npz", tmp_path / "axis.parquet", "--refit", "0", "--chr", "1", "--test", "axis:2") == 0
    assert "axis:2: of the null model of the whole genome, on every chromosome" in caplog.text
    planted = loco.MLOG10P > 8
    assert loco.MLOG10P[planted].sum() > whole.MLOG10P[planted].sum(), "the variant is not in its own GRM"


def test_empty_cells_are_counted(example: Path) -> None:
    counts = metadata(example / "scan.parquet")["counts"]
    rows = table(example / "scan.parquet")
    constant = counts["variants without variation (empty statistics)"]
    assert constant > 0
    assert rows.CHISQ.isna().sum() == constant
    assert len(rows) == counts["variants read"] == 3000


def test_metadata_has_no_path_and_no_time(example: Path) -> None:
    text = pq.read_schema(example / "scan.parquet").metadata[b"kron2sum"].decode()
    assert str(example) not in text
    assert str(EXAMPLE) not in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_null_model_read_in_the_precision_of_a_scan(example: Path, dtype: type[np.floating]) -> None:
    """One copy of the rotation, with the numbers of that of a model in double precision."""
    null = read_null(str(example / "null.npz"))
    double, model = null.load(None), null.load(None, dtype)
    rotation = model.scanner(dtype).rotation
    assert model.contrasts.V.dtype == dtype and np.shares_memory(model.contrasts.V, rotation)
    np.testing.assert_array_equal(model.contrasts.V, double.contrasts.V.astype(dtype))
    copied = replace(double, rows=None).scanner(dtype).rotation
    np.testing.assert_array_equal(rotation[:-3], copied[:-3])
    np.testing.assert_allclose(rotation[-3:], copied[-3:], rtol=0, atol=4 * np.finfo(dtype).eps * np.abs(copied).max())
    F, R, V = null.description.Y, double.contrasts.Z, double.contrasts.V
    size = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(model.contrasts.to_rows(F), V.T @ F, rtol=0, atol=size * np.linalg.norm(F))
    np.testing.assert_allclose(model.contrasts.to_samples(R), V @ R, rtol=0, atol=size * np.linalg.norm(R))


def test_memory_counts_the_rank_of_the_relationship_matrix_and_the_precision(example: Path) -> None:
    common = CommonSettings(threads=1, memory_mib=1000)
    settings = ScanSettings(
        null=str(example / "null.npz"), geno=(str(EXAMPLE / "genotypes.bed"),), out="scan.parquet", common=common
    )
    inputs = open_inputs(settings)
    null = inputs.null
    n = len(null.samples)
    assert null.nrows == n - len(null.covariates)
    assert block_width(settings, inputs) == 1024
    most = (1000 - 300) * 2**20 // (4 * n)
    assert block_width(settings, replace(inputs, null=replace(null, nrows=most - 2000))) < 1024
    with pytest.raises(InputError, match="--memory 1000: the null model of .* samples and 1 threads need"):
        block_width(settings, replace(inputs, null=replace(null, nrows=most)))
    axes = null.whole.axes
    singular = replace(null.whole, axes=replace(axes, c1=np.append(axes.c1[:-1], 1e-3)))
    with pytest.raises(InputError, match="need 1[0-9]{3} MiB"):  # numbers of 8 bytes, for C1 is nearly singular
        block_width(settings, replace(inputs, null=replace(null, nrows=most - 2000, whole=singular)))


def test_refits_of_a_thin_grm_are_those_of_the_null_model_search(tmp_path: Path) -> None:
    """Fewer GRM variants than samples: part of every variant lies where GGᵀ is 0."""
    (tmp_path / "few.txt").write_text("".join(f"snp{k:04d}\n" for k in range(1, 3000, 30)))
    null, out = tmp_path / "thin.npz", tmp_path / "thin.parquet"
    fit = ("fit", "-q", "--pheno", EXAMPLE / "phenotypes.csv", "--grm", EXAMPLE / "genotypes.bed")
    assert kron2sum(*fit, "--grm-extract", tmp_path / "few.txt", "--out", null) == 0
    (tmp_path / "some.txt").write_text("snp0409\nsnp1823\nsnp0007\n")
    assert scan(null, out, "--refit", "1", "--extract", tmp_path / "some.txt", "--precision", "double") == 0
    rows = table(out).set_index("SNPID")
    whole = read_null(str(null))
    model, d = whole.load(None), whole.description
    data, names = model.contrasts, open_bed(str(EXAMPLE / "genotypes.bed")).variants.table["SNPID"].to_pylist()
    n, c = d.X.shape
    assert n > data.V.shape[1]
    # The contrasts of the covariates with the variant as a covariate of all traits, by maximum likelihood.
    Q = np.linalg.qr(d.X, mode="complete")[0][:, c:]
    GG = Q.T @ ((data.V * data.s) @ data.V.T) @ Q
    for name in table(out).SNPID:
        g = variant(null, names.index(name))
        alone = rotate_traits(spectrum_of_relationship(GG, Q.T @ g[:, None]), Q.T @ d.Y)
        expected = 2 * (climb(alone, model.summary.axes, 3, False).point.lml - model.summary.lml)
        found = float(rows.loc[name].CHISQ_REFIT) * metadata(out)["refit_factors"]["genome"]["any"]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_null_models_without_a_chromosome_share_the_bartlett_factors_of_the_whole_one(
    example: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("snp0409\n")
    refit = ("--extract", tmp_path / "one.txt", "--refit", "1", "--test", "common")
    factors = []
    for null in ("null.npz", "loco.npz"):
        assert scan(example / null, tmp_path / f"{null}.parquet", *refit) == 0
        factors.append(metadata(tmp_path / f"{null}.parquet")["refit_factors"])
    assert factors[0] == factors[1] and {"any", "common"} == set(factors[0]["genome"])
