"""How sets are cut into blocks."""

from collections import Counter

import numpy as np

from kron2sum_cli.files.scan_metadata import Span
from kron2sum_cli.scan.set_members import FoundSets, Members, blocks_of_sets


def found(sets: list[range], first: int = 0, stop: int | None = None, codes: str | None = None) -> FoundSets:
    members = [
        Members(f"s{k}", k, np.array(one, dtype=np.intp), None, codes[k] if codes else None)
        for k, one in enumerate(sets)
    ]
    return FoundSets(members, first, len(sets) if stop is None else stop, Span(((0, 1),), ((0, 1),), 1), Counter())


def test_overlapping_windows_share_their_variants() -> None:
    blocks = blocks_of_sets(found([range(k, k + 10) for k in range(0, 100, 5)]), 32)
    assert all(len(block.variants) <= 32 for block in blocks)
    assert sum(len(block.variants) for block in blocks) < 150  # and 200 one window at a time
    assert [one.order for block in blocks for one in block.sets] == list(range(20))
    for block in blocks:
        together = {k for one in block.sets for k in one.positions.tolist()}
        assert block.variants.tolist() == sorted(together)


def test_a_large_set_is_a_block() -> None:
    blocks = blocks_of_sets(found([range(3), range(50), range(4), range(0)]), 10)
    assert [[one.order for one in block.sets] for block in blocks] == [[0], [1], [2, 3]]
    assert [len(block.variants) for block in blocks] == [3, 50, 4]


def test_shards_rotate_the_same_blocks() -> None:
    sets = [range(7 * k, 7 * k + 5) for k in range(11)]
    whole = {block.variants[0]: block for block in blocks_of_sets(found(sets), 16)}
    rows = []
    for first, stop in ((0, 4), (4, 5), (5, 11)):
        for block in blocks_of_sets(found(sets, first, stop), 16):
            np.testing.assert_array_equal(block.variants, whole[block.variants[0]].variants)
            rows += [one.order for one in block.sets]
    assert rows == list(range(11))


def test_blocks_have_one_null_model() -> None:
    blocks = blocks_of_sets(found([range(2), range(2, 4), range(4, 6)], codes="112"), 100)
    assert [(block.chromosome, len(block.sets)) for block in blocks] == [("1", 2), ("2", 1)]
