"""What a fit says of the rank that was asked for, and of a relationship matrix that says too little."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kron2sum_cli.cli import run
from kron2sum_cli.model import fitting
from kron2sum_cli.model.contrasts import Contrasts
from kron2sum_cli.model.trait_axes import TraitAxes


def write(folder: Path, K: np.ndarray, Y: np.ndarray) -> list[str]:
    """Files of a fit, and its options."""
    names = [f"s{i}" for i in range(len(Y))]
    np.save(folder / "K.npy", K)
    (folder / "ids").write_text("\n".join(names) + "\n")
    header = ",".join(["IID", *(f"t{j}" for j in range(Y.shape[1]))])
    rows = [",".join([name, *map(str, y)]) for name, y in zip(names, Y, strict=True)]
    (folder / "y.csv").write_text("\n".join([header, *rows]) + "\n")
    options = [("--pheno", "y.csv"), ("--grm", "K.npy"), ("--grm-id", "ids"), ("--out", "null.npz")]
    return ["fit", "--threads", "1", *(word for name, file in options for word in (name, str(folder / file)))]


def exported(folder: Path) -> dict[str, Any]:
    """What the null model of a fit says."""
    words = ["export", str(folder / "null.npz"), "--to", "json", "--out", str(folder / "null.json"), "--quiet"]
    assert run(words) == 0
    found: dict[str, Any] = json.loads((folder / "null.json").read_text())
    return found


def families(n: int, p: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Families of five with a relationship of 0.5, and p traits with independent genetic effects."""
    rng = np.random.default_rng(seed)
    K = np.kron(np.eye(n // 5), np.full((5, 5), 0.5) + 0.5 * np.eye(5))
    return K, np.linalg.cholesky(K) @ rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, p))


def test_a_rank_below_what_the_data_support_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write(tmp_path, *families(200, 3, 1))
    assert run([*words, "--rank", "1"]) == 0
    assert "C0 of rank 1 has a log-likelihood" in capsys.readouterr().err
    assert run([*words, "--rank", "3"]) == 0
    assert "C0 of rank" not in capsys.readouterr().err.replace("C0 of rank at most", "")


@pytest.mark.parametrize("options", [[], ["--missing", "exact"]], ids=" ".join)
def test_negative_eigenvalues_that_are_set_to_0_are_counted(tmp_path: Path, options: list[str]) -> None:
    values = np.linspace(0.5, 2, 60)
    U = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0]
    Y = U @ np.random.default_rng(1).normal(size=(60, 2))
    if options:
        Y[::7, 1] = np.nan
    counted = "2 eigenvalues of the relationship matrix are negative (the smallest -8e-05, the largest of all 2): they"
    for negative in (False, True):
        values[:2] = [-8e-5, -3e-5] if negative else [8e-5, 3e-5]
        assert run([*write(tmp_path, (U * values) @ U.T, Y), "--no-intercept", *options]) == 0
        assert (counted in (tmp_path / "null.npz.log").read_text()) == negative


def test_a_rank_that_the_data_support_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    K, _ = families(200, 1, 2)
    rng = np.random.default_rng(103)
    one = np.linalg.cholesky(K) @ rng.normal(size=(200, 1))
    assert run([*write(tmp_path, K, one @ rng.normal(size=(1, 3)) + rng.normal(size=(200, 3))), "--rank", "1"]) == 0
    assert "below that of full rank" not in capsys.readouterr().err


@pytest.mark.parametrize("families_alone", [False, True])
@pytest.mark.parametrize(("share", "seed", "chosen"), [(0.0, 0, 1), (0.0, 3, 2), (0.1, 0, 1), (0.1, 5, 2)])
def test_a_lower_rank_is_chosen_where_full_rank_gains_less_than_a_boundary_leads_to_expect(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    seed: int,
    chosen: int,
    families_alone: bool,
) -> None:
    """Of two traits full rank has one parameter more: it is chosen for a gain of 2 lml above 1; AIC asks for 2."""
    monkeypatch.setattr("kron2sum_cli.fit.fit.CHEAP_PROFILE", 0)  # intervals take most of a fit's time
    K, _ = families(60, 2, seed)
    rng = np.random.default_rng(seed)
    genetic = np.linalg.cholesky(K) @ rng.normal(size=(60, 2)) @ [[1.0, 0.9], [0.0, 0.5]]
    Y = genetic + rng.normal(size=(60, 2))
    Y[rng.random(Y.shape) < share] = np.nan
    words = [*write(tmp_path, K, Y), *(["--missing", "exact"] if share else [])]
    words += ["--grm-cutoff", "0.3"] if families_alone else []
    fits = []
    for rank in ("1", "2", "auto"):
        assert run([*words, "--rank", rank]) == 0
        said = capsys.readouterr().err
        fits.append(exported(tmp_path))
    one, two, automatic = fits
    gain = 2 * (two["lml"] - one["lml"])
    assert 1.01 < gain < 1.99 if chosen == 2 else gain < 0.99
    assert automatic["rank"] == chosen
    table = [line.split() for line in said.splitlines() if line.endswith("<- chosen")]
    assert [int(row[0]) for row in table] == [chosen]


@pytest.mark.parametrize("uncertified", [1, 2])
def test_a_lower_rank_without_an_optimum_is_no_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uncertified: int
) -> None:
    def climb(data: Contrasts, start: TraitAxes, rank: int, reml: bool) -> fitting.Fit:
        found = climb_as_ever(data, start, rank, reml)
        certificate = replace(found.certificate, predicted_gain=np.inf)
        return replace(found, certificate=certificate) if rank == uncertified else found

    climb_as_ever = fitting.climb
    K, _ = families(60, 2, 1)
    words = write(tmp_path, K, np.random.default_rng(1).normal(size=(60, 2)))
    assert run([*words, "--rank", "1"]) == 0
    monkeypatch.setattr(fitting, "climb", climb)
    assert run([*words, "--rank", "auto"]) == (0 if uncertified == 1 else 3)
    said = capsys.readouterr().err
    warned = "no optimum with C0 of rank 1 could be certified: --rank auto chose among the others"
    assert (warned in said) == (uncertified == 1)
    assert exported(tmp_path)["rank"] == (2 if uncertified == 1 else 1)


def test_eigenvalues_that_hardly_vary_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    K = 0.5 * np.eye(300)
    K[0, 1] = K[1, 0] = 0.23
    assert run(write(tmp_path, K, np.random.default_rng(1).normal(size=(300, 2)))) == 0
    assert "the eigenvalues of the relationship matrix hardly vary" in capsys.readouterr().err


def test_a_matrix_of_the_intercept_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write(tmp_path, np.ones((60, 60)), np.random.default_rng(1).normal(size=(60, 2)))
    assert run(words) == 1
    said = capsys.readouterr().err
    assert "use another matrix, or --grm none" in said and "hardly vary" not in said


def test_heritabilities_near_a_boundary_have_profile_intervals(tmp_path: Path) -> None:
    K, Y = families(200, 1, 4)
    noise = np.random.default_rng(5).normal(size=(200, 1))
    assert run([*write(tmp_path, K, np.hstack([Y, noise])), "--quiet"]) == 0
    fitted = exported(tmp_path)
    assert fitted["h2"][1] < 2 * fitted["h2_se"][1]
    assert list(fitted["profile"]) == ["t1"]
    assert fitted["profile"]["t1"]["low"] <= fitted["h2"][1] <= fitted["profile"]["t1"]["high"]


def test_traits_of_a_combination_without_variance_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In all three samples that have both traits, the second is 1 + 2 times the first."""
    rng = np.random.default_rng(0)
    G = rng.normal(size=(40, 60)) / np.sqrt(60)
    Y = G @ rng.normal(size=(60, 2)) + rng.normal(size=(40, 2))
    Y[18:21, 1] = 1 + 2 * Y[18:21, 0]
    Y[:18, 1] = Y[21:, 0] = np.nan
    words = [*write(tmp_path, G @ G.T, Y), "--missing", "exact"]
    assert run(words) == 3
    assert "too few samples (3) have all of traits t0 and t1, and it grows" in capsys.readouterr().err
    assert run([*words, "--allow-unconverged"]) == 0
    assert "traits t0 and t1" in capsys.readouterr().err
