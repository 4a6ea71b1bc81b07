"""Sparse relationship matrices as GCTA, R, KING and plink write them."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.io import mmwrite

from kron2sum_cli.errors import InputError
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.genotypes.source import Relationship
from kron2sum_cli.genotypes.sparse_matrix import (
    above_cutoff,
    is_table_of_pairs,
    of_samples,
    read_gcta_sparse,
    read_matrix_market,
    read_table_of_pairs,
    with_unlisted,
)

SAMPLES = Samples(("f1", "f1", "f2"), ("a", "b", "c"), "k.grm.id")
K = np.array([[1.01, 0.5, 0.0], [0.5, 0.98, 0.0], [0.0, 0.0, 1.02]])


def test_gcta(tmp_path: Path) -> None:
    path = tmp_path / "k.grm.sp"
    path.write_text("0\t0\t1.01\n1\t0\t0.5\n1\t1\t0.98\n2\t2\t1.02\n")
    np.testing.assert_array_equal(read_gcta_sparse(str(path), SAMPLES, "k.grm.id").K.toarray(), K)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 1\n3 0 0.5\n", "line 2: 3 0 are no positions of the 3 samples of k.grm.id"),
        ("0 0 1\n1 1 1\n", "sample 'f2 c' has 0 on the diagonal"),
        ("0 0 1\n1 1 1\n2 2 1\n1 0 .5\n0 1 .4\n", "lines 4 and 5: have the same pair"),
        ("0 0 1 5\n", "has 4 columns"),
        ("0 0 1\n1 1 a\n", "k.grm.sp, line 2: cannot be read .* copy it again"),
        ("\n0 0 1\n\n3 0 0.5\n", "line 4: 3 0 are no positions"),
        ("\n0 0 1\n\n1 1 1\n2 2 1\n1 0 .5\n \n0 1 .4\n", "lines 6 and 8: have the same pair"),
        ("0 0 1\n\n1 1 a\n", "k.grm.sp, line 3: cannot be read"),
        ("0 0 1\n\n1 1 1\n2 2\n", "line 4: has a relationship that is not a finite number"),
        ("0 0 1\n1 1 1\n2 2\n", "line 3: has a relationship that is not a finite number"),
    ],
)
def test_wrong_gcta_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "k.grm.sp"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_gcta_sparse(str(path), SAMPLES, "k.grm.id")


@pytest.mark.parametrize("symmetry", ["symmetric", "general"])
def test_matrix_market(tmp_path: Path, symmetry: str) -> None:
    path = str(tmp_path / "k.mtx")
    mmwrite(path, sparse.coo_array(K), symmetry=symmetry)
    np.testing.assert_array_equal(read_matrix_market(path, SAMPLES, "k.id").K.toarray(), K)


def test_a_triangle_that_says_it_is_general_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "k.mtx")
    mmwrite(path, sparse.coo_array(np.tril(K)), symmetry="general")
    with pytest.raises(InputError, match="is not symmetric"):
        read_matrix_market(path, SAMPLES, "k.id")


@pytest.mark.parametrize(
    ("header", "line", "fids", "iids", "value"),
    [
        (
            "#FID1\tIID1\tFID2\tIID2\tNSNP\tHETHET\tIBS0\tKINSHIP",
            "f1\ta\tf2\tc\t9\t.1\t.2\t0.25",
            ("f1", "f2"),
            "ac",
            0.5,
        ),
        ("#IID1\tIID2\tNSNP\tHETHET\tIBS0\tKINSHIP", "a\tc\t9\t.1\t.2\t0.25", None, "ac", 0.5),
        (
            "FID1\tID1\tFID2\tID2\tN_SNP\tHetHet\tIBS0\tKinship",
            "f1\ta\tf2\tc\t9\t.1\t.2\t0.25",
            ("f1", "f2"),
            "ac",
            0.5,
        ),
        ("FID ID1 ID2 N_SNP Z0 Phi HetHet IBS0 Kinship Error", "f1 a c 9 0 .25 .1 .2 0.24 0", ("f1", "f1"), "ac", 0.48),
        (" FID1 IID1 FID2 IID2 RT EZ Z0 Z1 Z2 PI_HAT", " f1 a f2 c UN NA 0 1 0 0.5", ("f1", "f2"), "ac", 0.5),
        ("ID1,ID2,value", "a,c,0.125", None, "ac", 0.125),
        ("ID1;ID2;value", "a;c;0,125", None, "ac", 0.125),
    ],
    ids=["plink2", "plink2 without FID", "KING .kin0", "KING .kin", "plink .genome", "CSV", "semicolons"],
)
def test_tables_of_pairs(
    tmp_path: Path, header: str, line: str, fids: tuple[str, ...] | None, iids: str, value: float
) -> None:
    path = tmp_path / "pairs"
    path.write_text(f"{header}\n{line}\n")
    assert is_table_of_pairs(header.replace(",", " ").replace(";", " ").split())
    matrix = read_table_of_pairs(str(path))
    assert (matrix.samples.fids, matrix.samples.iids) == (fids, tuple(iids))
    np.testing.assert_allclose(matrix.K.toarray(), [[1, value], [value, 1]])


def test_a_pair_of_a_sample_with_itself_is_its_diagonal(tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.write_text("ID1 ID2 KINSHIP\na a 0.6\na b 0.25\n")
    np.testing.assert_allclose(read_table_of_pairs(str(path)).K.toarray(), [[1.2, 0.5], [0.5, 1]])


def test_wrong_values_of_pairs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.write_text("ID1 ID2 KINSHIP\na b 0.25\na c no\n")
    with pytest.raises(InputError, match="line 3: KINSHIP is 'no'"):
        read_table_of_pairs(str(path))
    path.write_text("ID1 ID2 KINSHIP\na b 0.25\n\na c no\n")
    with pytest.raises(InputError, match="line 4: KINSHIP is 'no'"):
        read_table_of_pairs(str(path))
    path.write_text("ID1 ID2 KINSHIP\na b 0.25\nb a 0.2\n")
    with pytest.raises(InputError, match="lines 2 and 3: have the same pair"):
        read_table_of_pairs(str(path))


def test_samples_in_no_pair_are_unrelated(tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.write_text("ID1 ID2 KINSHIP\na b 0.25\na c 0.1\n")
    matrix = with_unlisted(read_table_of_pairs(str(path)), Samples(None, ("c", "x", "a"), "y.csv"))
    np.testing.assert_allclose(of_samples(matrix, np.array([0, 1, 2])).toarray(), [[1, 0, 0.2], [0, 1, 0], [0.2, 0, 1]])
    np.testing.assert_allclose(of_samples(matrix, np.array([2, 1])).toarray(), [[1, 0], [0, 1]])


@pytest.mark.parametrize("stored", ["dense", "features", "sparse"])
def test_cutoffs_keep_the_diagonal(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kron2sum_cli.genotypes.sparse_matrix.ROWS_AT_ONCE", 2)
    G = np.array([[0.1, 0.0], [0.5, 1.0], [0.4, -0.9]])
    M = G @ G.T
    samples = Samples(None, ("a", "b", "c"), "ids")
    parts = {"dense": (None, M, None), "features": (G, None, None), "sparse": (None, None, sparse.csr_array(M))}
    G_part, K_part, sparse_part = parts[stored]
    cut = above_cutoff(Relationship(samples, G_part, K_part, {}, (), sparse_part), 0.045)
    assert cut.sparse is not None
    np.testing.assert_allclose(cut.sparse.toarray(), np.where(np.eye(3, dtype=bool) | (M >= 0.045), M, 0))
    assert cut.counts == {"pairs of samples below --grm-cutoff 0.045 of 3": 2}
