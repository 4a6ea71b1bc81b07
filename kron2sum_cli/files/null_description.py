"""What a null model's file says besides its fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kron2sum_cli.files.samples import Samples
from kron2sum_cli.model.null_model import TraitData


@dataclass(frozen=True)
class NullDescription(TraitData):
    """What a null model's file says besides its fits: Y as analysed, A, X, and what they are.

    Attributes
    ----------
    version : of the program that wrote it
    method : "reml" or "ml"
    traits, covariates : names, in the order of C0 and of the rows of B
    samples : the analysed samples, in the order of the rotation
    grm : what the relationship matrix was made of: ``path``, ``files`` (name, size, hash), ``options``
    inputs : phenotype and covariate files (name, size, hash)
    counts : samples, by reason
    """

    version: str
    method: str
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    samples: Samples
    grm: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Mapping[str, int]
