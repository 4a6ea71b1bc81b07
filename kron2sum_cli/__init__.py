"""Multi-trait association scans with a Kronecker-structured linear mixed model.

``vec(Y) ~ N((A ⊗ X) vec(B), C0 ⊗ GGᵀ + C1 ⊗ I)``

The public names are imported on first use, so that ``kron2sum --version`` need not import numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kron2sum_cli._version import __version__

if TYPE_CHECKING:
    from kron2sum_cli.model.covariance import Kron2SumCov
    from kron2sum_cli.model.kron2sum import Kron2Sum

_HOMES = {
    "Kron2Sum": "kron2sum_cli.model.kron2sum",
    "Kron2SumCov": "kron2sum_cli.model.covariance",
}

__all__ = ["Kron2Sum", "Kron2SumCov", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
