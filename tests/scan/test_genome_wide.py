"""Thresholds over a whole scan against whole scans of traits that are simulated independently."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import TRAITS, N, genotypes, null_model, scan_of, trait_data

from kron2sum_cli.errors import OutputError
from kron2sum_cli.model.bootstrap import normal_errors, permutations, simulated_normal, simulated_permuted, threshold
from kron2sum_cli.scan.block import Block, BlockResult
from kron2sum_cli.scan.block import test_block as tested
from kron2sum_cli.scan.resume import finished_blocks

V, SCANS, LEVELS = 30, 200, (0.1, 0.05)


def largest_of_rows(result: BlockResult) -> dict[str, float]:
    columns = {"any": "MLOG10P", "common": "MLOG10P.common"} | {trait: f"MLOG10P.{trait}" for trait in TRAITS}
    return {
        name: np.nanmax(result.rows.column(column).to_numpy(zero_copy_only=False)) for name, column in columns.items()
    }


@pytest.mark.parametrize("resample", ["normal", "permute"])
def test_thresholds_are_those_of_scans_of_simulated_traits(resample: str) -> None:
    """Within sampling error of 200 scans, in each of which the null model is fitted anew; or heavy-tailed, permuted."""
    source, data, rng = genotypes(V), trait_data(), np.random.default_rng(11)
    block = Block(np.arange(V), np.full(V, True))
    G = np.random.default_rng(2).normal(size=(N, 30)) / np.sqrt(30)  # as in `null_model`
    roots = [np.linalg.cholesky([[0.5, 0.2], [0.2, 0.4]]), np.linalg.cholesky([[1.0, -0.3], [-0.3, 0.8]])]
    assert SCANS == 200

    def traits() -> np.ndarray:
        noise = rng.normal(size=(N, 2)) if resample == "normal" else rng.standard_t(4, size=(N, 2)) / np.sqrt(2)
        return 3 + G @ rng.normal(size=(30, 2)) @ roots[0].T + noise @ roots[1].T

    data = replace(data, Y=traits())
    model = null_model(data)
    scan = scan_of(source, data, model=model)
    if resample == "normal":
        simulated = simulated_normal(model, normal_errors(5, 999, N, 2), None, np.float64)
    else:
        simulated = simulated_permuted(model, data.Y, permutations(5, 999, N), None, np.float64)
    largest = tested(replace(scan, simulated=simulated), block).largest

    def scan_of_others() -> dict[str, float]:
        others = replace(data, Y=traits())
        refitted = null_model(others, start=model.summary.axes)  # a search takes ten times as long
        return largest_of_rows(tested(scan_of(source, others, model=refitted), block))

    found = [scan_of_others() for _ in range(SCANS)]
    for name, values in largest.items():
        for level in LEVELS:
            limit = threshold(np.array(values), level)
            assert limit is not None
            share = np.mean([one[name] > limit for one in found])
            error = np.sqrt(level * (1 - level) * (1 / SCANS + 1 / 999))
            assert abs(share - level) < 3.5 * error, (name, level, share)


def test_finished_blocks_that_are_no_longer_there_are_missed(tmp_path: Path) -> None:
    result = tested(scan_of(genotypes(V), trait_data()), Block(np.arange(V), np.full(V, True)))
    with finished_blocks(str(tmp_path / "scan.parquet"), {}, False) as finished:
        list(finished.read())
        finished.add(result)
        (kept,) = tmp_path.glob(".scan.parquet*")
        os.truncate(kept, kept.stat().st_size - 1)
        with pytest.raises(OutputError, match="was damaged while the scan ran"):
            list(finished.read_again())


def test_finished_blocks_keep_the_largest_statistics(tmp_path: Path) -> None:
    source, data = genotypes(V), trait_data()
    model = null_model(data)
    simulated = simulated_normal(model, normal_errors(5, 7, N, 2), None, np.float64)
    result = tested(replace(scan_of(source, data), simulated=simulated), Block(np.arange(V), np.full(V, True)))
    assert {len(values) for values in result.largest.values()} == {7}
    out = str(tmp_path / "scan.parquet")
    with suppress(KeyboardInterrupt), finished_blocks(out, {}, False) as finished:
        list(finished.read())
        finished.add(result)
        raise KeyboardInterrupt
    with finished_blocks(out, {}, True) as finished:
        (again,) = finished.read()
        finished.add(result)
        both = list(finished.read_again())
    for one in (again, *both):
        assert {name: tuple(values) for name, values in one.largest.items()} == result.largest
        assert one.rows.equals(result.rows)
    assert len(both) == 2
