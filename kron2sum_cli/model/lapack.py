"""Two LAPACK decompositions in place and without Python's lock, and a small solve.

scipy's wrappers hold the interpreter's lock, so that for the minutes of a large eigendecomposition no progress is shown
and Ctrl-C waits; numpy's release it, but hold up to five matrices. Called through the pointers that scipy exports for
Cython, the routines overwrite their input and take no more memory than their own workspace.
"""

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_lapack, lapack

from kron2sum_cli.errors import NumericalError

Array = NDArray[np.float64]

LARGEST_ORDER = 32_000
"""The workspace for a matrix much larger than this does not fit a 32-bit integer."""

REFLECTIONS = 128
"""Reflections that are applied together: enough for a matrix product, few enough for the cache."""

PANEL, MOST_PANELS = 256, 8
"""Eigenvectors that are transformed at once, at least, and into how many panels they are cut at most. All fixed, so
that no digit depends on the number of threads."""

_BLOCK = 64
"""Rows of workspace a column that LAPACK's blocked routines can use at most."""


def eigh_in_place(K: Array, threads: int = 1) -> tuple[Array, Array]:
    """Eigenvalues, increasing, and eigenvectors of a symmetric matrix by divide and conquer.

    ``K = Q T Qᵀ`` with T tridiagonal (dsytrd), ``T = Z diag(s) Zᵀ`` (dstedc), and ``E = QZ`` (dlarfb), as in dsyevd,
    which has K, Z and a workspace of n² for dstedc at once. Here Q is put aside as half a matrix, for Z to take its
    place.

    Parameters
    ----------
    K : (n, n) float64 in Fortran order or a block of such a matrix, n up to `LARGEST_ORDER`; it becomes the
        eigenvectors. The workspace is 1.5n².
    threads : that share the panels of Z; more than one where BLAS itself runs on one

    Raises
    ------
    NumericalError
        Where the matrix is too large or a routine does not converge.
    """
    n = K.shape[0]
    if n > LARGEST_ORDER:
        raise NumericalError(f"a relationship matrix of {n} samples is beyond {LARGEST_ORDER}; use fewer GRM variants")
    columns = max(n, 1)
    values, off_diagonal, tau = np.empty(n), np.empty(columns), np.empty(columns)
    size = _BLOCK * columns
    _call("dsytrd", b"L", n, K, _leading_dimension(K), values, off_diagonal, tau, np.empty(size), size)
    with ThreadPoolExecutor(threads) as pool:
        reflectors = list(pool.map(partial(_take_reflectors, K, tau), range(0, n - 1, REFLECTIONS)))
        _tridiagonal_vectors(values, off_diagonal, K)
        width = max(PANEL, -(-n // MOST_PANELS))

        def transform(start: int) -> None:
            for reflector in reversed(reflectors):
                reflector.apply(K[:, start : start + width])

        list(pool.map(transform, range(0, n, width)))
    return values, K


@dataclass(frozen=True)
class _Reflectors:
    """The product ``I - V T Vᵀ`` of some consecutive Householder reflections ``I - τ v vᵀ`` of dsytrd.

    Attributes
    ----------
    V : (m, k) unit lower trapezoidal, one v a column, in Fortran order; they change the last m rows
    T : (k, k) upper triangular, in Fortran order
    """

    V: Array
    T: Array

    def apply(self, Z: Array) -> None:
        """Multiply the columns of Z (n, b), in place."""
        (m, k), b = self.V.shape, Z.shape[1]
        rows, work = Z[len(Z) - m :], np.empty((b, k))
        how = (b"L", b"N", b"F", b"C")  # from the left, not transposed, first to last, a reflection a column
        _invoke("dlarfb", *how, m, b, k, self.V, m, self.T, k, rows, _leading_dimension(Z), work, b)


def _take_reflectors(K: Array, tau: Array, start: int) -> _Reflectors:
    """A copy of those that dsytrd has left below the diagonal of some columns of K, from this one on."""
    stop = min(start + REFLECTIONS, len(K) - 1)
    V = K[start + 1 :, start:stop].copy(order="F")
    (m, k), T = V.shape, np.empty((stop - start, stop - start), order="F")
    _invoke("dlarft", b"F", b"C", m, k, V, m, tau[start:stop], T, k)
    return _Reflectors(V, T)


def _tridiagonal_vectors(values: Array, off_diagonal: Array, Z: Array) -> None:
    """Eigenvectors of a symmetric tridiagonal matrix into Z (n, n); its diagonal becomes its eigenvalues."""
    n = values.size
    size, integers = 1 + 4 * n + n * n, 3 + 5 * n
    work, iwork = np.empty(size), np.empty(integers, np.intc)
    _call("dstedc", b"I", n, values, off_diagonal, Z, _leading_dimension(Z), work, size, iwork, integers)


def svd_in_place(M: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition of a tall matrix (dgesdd).

    Parameters
    ----------
    M : (n, r) float64 in Fortran order or a block of such a matrix, n ≥ r; it becomes the left singular vectors

    Returns
    -------
    U (n, r), which is M, the singular values (r,), decreasing, and Vᵀ (r, r)

    Raises
    ------
    NumericalError
        Where the routine does not converge.
    """
    n, r = M.shape
    stride = _leading_dimension(M)
    sigma, Vt = np.empty(r), np.empty((r, r), order="F")
    iwork, unused = np.empty(8 * max(r, 1), np.intc), np.empty(1)

    def call(work: Array, lwork: int) -> None:
        _call("dgesdd", b"O", n, r, M, stride, sigma, unused, 1, Vt, max(r, 1), work, lwork, iwork)

    work = np.empty(1)
    call(work, -1)
    lwork = int(work[0])
    call(np.empty(lwork), lwork)
    return M, sigma, Vt


def solve_triangular(R: Array, M: Array) -> Array:
    """``R⁻¹M`` for R (k, k) upper triangular (dtrtrs), in a fraction of the time of scipy's routine of that name.

    Raises
    ------
    NumericalError
        Where R has a zero on its diagonal.
    """
    if M.size == 0:
        return M
    solution, info = lapack.dtrtrs(R, M)
    _refuse_failure("dtrtrs", info)
    return np.asarray(solution)


def _leading_dimension(M: Array) -> int:
    """Distance between columns, in numbers."""
    rows, columns = M.shape
    step, stride = (size // M.itemsize for size in M.strides)
    fortran = M.size == 0 or ((rows == 1 or step == 1) and (columns == 1 or stride >= rows))
    if M.dtype != np.float64 or not M.flags.writeable or not fortran:
        raise ValueError("the matrix must be float64, writeable and in Fortran order")
    return int(max(stride, rows, 1))


def _call(name: str, *arguments: bytes | int | NDArray[Any]) -> None:
    """Call a routine whose last argument, which is not given here, says whether it succeeded."""
    info = np.zeros(1, np.intc)
    _invoke(name, *arguments, info)
    _refuse_failure(name, int(info[0]))


def _refuse_failure(name: str, info: int) -> None:
    if info != 0:
        raise NumericalError(f"LAPACK {name} failed with code {info}")


def _invoke(name: str, *arguments: bytes | int | NDArray[Any]) -> None:
    """Call a routine; integers and texts go by address, as Fortran wants them."""
    held = [_by_address(argument) for argument in arguments]
    _routine(name, len(held))(*(pointer for pointer, _ in held))


def _by_address(argument: bytes | int | NDArray[Any]) -> tuple[Any, Any]:
    """A pointer to an argument, and what has to live as long as it."""
    if isinstance(argument, bytes):
        text = ctypes.c_char(argument)
        return ctypes.addressof(text), text
    if isinstance(argument, int):
        number = ctypes.c_int(argument)
        return ctypes.addressof(number), number
    return argument.ctypes.data, argument


def _routine(name: str, count: int) -> Callable[..., None]:
    capsule = cast(Mapping[str, Any], cython_lapack.__pyx_capi__)[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(capsule, get_name(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(address)
