"""What a null model's file says besides its fits: of whom and of what they are, and how they were made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kron2sum_cli.files.inputs import FileRecord
from kron2sum_cli.files.json_records import canonical_json, read_record, to_json
from kron2sum_cli.files.samples import Samples
from kron2sum_cli.model.null_model import TraitData
from kron2sum_cli.model.uncertainty import Interval

FORMAT = 2
"""Version of the file's layout."""


@dataclass(frozen=True)
class GrmRecord:
    """What a relationship matrix was made of.

    ``paths`` are as they were given, ``files`` those that were read. ``genotypes`` says whether it was made of
    genotypes, which a scan may take again, and ``options`` how: ``scale``, ``maf``, ``geno``, and where they were given
    ``ploidy`` and ``map``.
    """

    paths: tuple[str, ...]
    genotypes: bool
    files: tuple[FileRecord, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class NullMetadata:
    """The JSON object ``meta`` of a null model's file.

    - ``version``: of the program that wrote it.
    - ``method``: "reml" or "ml".
    - ``traits``, ``covariates``: names, in the order of C0 and of the rows of B.
    - ``grm``: what the relationship matrix was made of.
    - ``inputs``: the files of ``pheno``, ``covar`` and ``pred``.
    - ``counts``: samples, by reason.
    - ``transform``: what was done to each trait before the fit, one of `settings.TRANSFORMS`.
    - ``chromosomes``: those without which there are fits, with LOCO: the first of those that are left out together.
    - ``left_out_with``: further chromosomes that are left out, and the one in `chromosomes` that they are left out
      with.
    - ``profile``: profile-likelihood interval of the heritability of each trait.
    - ``hash``: identifies the model; "" until its last fit is written.
    """

    version: str
    method: Literal["reml", "ml"]
    traits: tuple[str, ...]
    covariates: tuple[str, ...]
    grm: GrmRecord
    inputs: Mapping[str, tuple[FileRecord, ...]]
    counts: Mapping[str, int]
    transform: str = "none"
    chromosomes: tuple[str, ...] = ()
    left_out_with: Mapping[str, str] = field(default_factory=dict)
    profile: Mapping[str, Interval] = field(default_factory=dict)
    hash: str = ""

    @property
    def takes_predictions_off(self) -> bool:
        """Whether the null model of a chromosome has the traits less their prediction without it, ``--pred``."""
        return "pred" in self.inputs

    def to_json(self) -> str:
        """The JSON text."""
        return canonical_json({"format": FORMAT, **to_json(self)})

    @classmethod
    def from_json(cls, text: str) -> "NullMetadata":
        """The metadata of a JSON text; see `read_record`."""
        return read_record(cls, text, "format", FORMAT, "kron2sum fit")


@dataclass(frozen=True)
class NullDescription(TraitData):
    """What a null model's file says besides its fits: Y as analysed, A, X, and what they are.

    Samples are those analysed, in the order of the rotation.
    """

    metadata: NullMetadata
    samples: Samples

    @property
    def method(self) -> Literal["reml", "ml"]:
        """The likelihood."""
        return self.metadata.method

    @property
    def traits(self) -> tuple[str, ...]:
        """Names of the traits."""
        return self.metadata.traits

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return self.metadata.covariates


def effect_names(description: NullDescription) -> list[str]:
    """Names of the columns of B: the traits, or with a trait design A1, A2, ... for its columns."""
    p, a = description.A.shape
    if a == p and np.array_equal(description.A, np.eye(p)):
        return list(description.traits)
    return [f"A{k + 1}" for k in range(a)]
