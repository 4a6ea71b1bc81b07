"""Decompositions in place against numpy's."""

import numpy as np
import pytest

from kron2sum_cli.model import lapack
from kron2sum_cli.model.lapack import eigh_in_place, svd_in_place


def symmetric_block(n: int) -> np.ndarray:
    """A symmetric matrix as a block of a larger one."""
    A = np.random.default_rng(n).normal(size=(n, n))
    whole = np.zeros((n + 2, n + 2), order="F")
    whole[2:, 2:] = A + A.T
    return whole[2:, 2:]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 40, 131])
def test_eigenvectors(n, monkeypatch):
    monkeypatch.setattr(lapack, "PANEL", 16)
    monkeypatch.setattr(lapack, "REFLECTIONS", 12)
    A = symmetric_block(n)
    s, E = eigh_in_place(symmetric_block(n))
    np.testing.assert_allclose(s, np.linalg.eigvalsh(A), rtol=0, atol=1e-12)
    np.testing.assert_allclose(E.T @ E, np.eye(n), rtol=0, atol=1e-13)
    np.testing.assert_allclose(A @ E, E * s, rtol=0, atol=1e-12)


def test_no_digit_depends_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(lapack, "PANEL", 16)
    monkeypatch.setattr(lapack, "REFLECTIONS", 12)
    results = [eigh_in_place(symmetric_block(131), threads) for threads in (1, 2, 3)]
    for s, E in results[1:]:
        np.testing.assert_array_equal(s, results[0][0])
        np.testing.assert_array_equal(E, results[0][1])


@pytest.mark.parametrize("shape", [(5, 5), (40, 7), (3, 1)])
def test_singular_vectors(shape):
    A = np.asfortranarray(np.random.default_rng(0).normal(size=shape))
    U, sigma, Vt = svd_in_place(A.copy(order="F"))
    np.testing.assert_allclose(sigma, np.linalg.svd(A, compute_uv=False), rtol=1e-13)
    np.testing.assert_allclose((U * sigma) @ Vt, A, rtol=0, atol=1e-13)


@pytest.mark.parametrize("wrong", [np.eye(3), np.eye(3, dtype=np.float32, order="F"), np.eye(6)[::2, ::2]])
def test_matrices_that_lapack_cannot_take(wrong):
    wrong = wrong + np.arange(3) if wrong.dtype == np.float64 else wrong
    with pytest.raises(ValueError, match="Fortran order"):
        eigh_in_place(wrong)
