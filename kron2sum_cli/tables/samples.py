"""Sample identities: who is who across files, whatever the order."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Samples:
    """The samples of one file, in its order.

    Attributes
    ----------
    fids : family IDs, or None where the file has none (samples then match on IID alone)
    iids : individual IDs, as many as there are samples
    source : the file they were read from, for messages
    """

    fids: tuple[str, ...] | None
    iids: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.iids)

    def label(self, index: int) -> str:
        """``FID IID`` of one sample (``IID`` alone where there is no FID), for messages."""
        iid = self.iids[index]
        return iid if self.fids is None else f"{self.fids[index]} {iid}"

    def take(self, indices: Sequence[int]) -> "Samples":
        """The samples at these positions, in this order."""
        fids = None if self.fids is None else tuple(self.fids[i] for i in indices)
        return Samples(fids, tuple(self.iids[i] for i in indices), self.source)
