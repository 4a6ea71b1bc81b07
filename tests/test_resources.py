"""Processors that are granted, whoever grants them."""

import os
from pathlib import Path

import pytest

from kron2sum_cli import resources
from kron2sum_cli.resources import available_memory_mib, available_threads, idle_processors, peak_memory_mib


@pytest.fixture
def threads(tmp_path, monkeypatch):
    """Threads on a machine with 8 processors, given control groups as files and an environment."""
    monkeypatch.setattr(resources, "_affinity", lambda: 8)

    def threads(membership: str = "", groups: dict[str, str] | None = None, **environ: str) -> int:
        (tmp_path / "membership").write_text(membership)
        for path, text in (groups or {}).items():
            file = tmp_path / "cgroup" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return available_threads(environ, tmp_path / "cgroup", tmp_path / "membership")

    return threads


def test_affinity():
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert available_threads({}, Path("nowhere"), Path("nowhere")) == expected


def test_no_limit(threads):
    assert threads() == 8
    assert threads("0::/a\n", {"a/cpu.max": "max 100000\n"}) == 8


@pytest.mark.parametrize(("quota", "expected"), [(200000, 2), (150000, 2), (50000, 1), (1000, 1), (1600000, 8)])
def test_version_2(threads, quota, expected):
    assert threads("0::/a/b\n", {"a/b/cpu.max": f"{quota} 100000\n"}) == expected


def test_group_above_counts_too(threads):
    assert threads("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000"}) == 3
    assert threads("0::/x/y\n", {"cpu.max": "100000 100000"}) == 1  # inside a container: the root only


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(threads, mount):
    groups = {f"{mount}/a/cpu.cfs_quota_us": "400000\n", f"{mount}/a/cpu.cfs_period_us": "100000\n"}
    membership = "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/\n0::/\n"
    assert threads(membership, groups) == 4
    groups[f"{mount}/a/cpu.cfs_quota_us"] = "-1\n"
    assert threads(membership, groups) == 8


def test_omp_num_threads(threads):
    assert threads(OMP_NUM_THREADS="3") == 3
    assert threads(OMP_NUM_THREADS="4,2") == 4
    assert threads(OMP_NUM_THREADS="99") == 8
    for nonsense in ("", "0", "-1", "many"):
        assert threads(OMP_NUM_THREADS=nonsense) == 8


def test_nonsense_in_the_files(threads):
    assert threads("garbage\n0::\n:::\n", {"cpu.max": "0 0\n"}) == 8
    assert threads("0::/\n", {"cpu.max": "\n"}) == 8


def test_memory(tmp_path):
    """The least of what the machine has and what the control groups, of either version, allow."""
    machine = available_memory_mib(tmp_path, Path("nowhere"))
    assert machine > 100
    membership = tmp_path / "membership"
    for text, file in (("0::/a/b\n", "a/memory.max"), ("4:memory:/a\n", "memory/a/memory.limit_in_bytes")):
        membership.write_text(text)
        limit = tmp_path / "cgroup" / file
        limit.parent.mkdir(parents=True, exist_ok=True)
        for content, expected in ((f"{64 << 20}\n", 64), ("max\n", machine), (f"{1 << 62}\n", machine)):
            limit.write_text(content)
            assert available_memory_mib(tmp_path / "cgroup", membership) == expected


def test_peak_memory():
    assert 5 < peak_memory_mib() < 100_000


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """Idle processors where the kernel counts these two states, on processors 0 and 2."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)

    def idle(before: str, after: str) -> float | None:
        stat = tmp_path / "stat"
        stat.write_text(before)
        return idle_processors(stat, lambda seconds: stat.write_text(after) and None)

    return idle


def test_idle_processors_are_those_of_the_affinity_mask(idle):
    before = "cpu 9 9 9 9\ncpu0 10 0 0 100 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\ncpu2 5 5 5 50 5 0 0 0 0 0\nintr 1\n"
    after = "cpu 9 9 9 9\ncpu0 40 0 0 100 0 0 0 0 0 0\ncpu1 0 0 0 30 0 0 0 0 0 0\ncpu2 5 5 5 70 15 0 0 0 0 0\nintr 1\n"
    assert idle(before, after) == pytest.approx(1)  # one works, one idles or waits for a disk; cpu1 is not ours
    stolen = before.replace("cpu0 10 0 0 100 0 0 0 0", "cpu0 10 0 0 115 0 0 0 15").replace("50 5", "80 5")
    assert idle(before, stolen) == pytest.approx(1.5)


def test_idle_processors_are_not_known(idle):
    assert idle("", "") is None
    assert idle("cpu0 1 2 3 4 5 6 7 8\n", "cpu0 1 2 3 4 5 6 7 8\n") is None
    assert idle_processors(Path("nowhere")) is None
