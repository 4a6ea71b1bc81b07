"""What the machine grants to this process: processors to use, memory used so far."""

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

_MIB = 1024 * 1024

LOOKED_AT = 0.3
"""Seconds over which `idle_processors` looks; the kernel counts in hundredths."""


def available_threads(
    environ: Mapping[str, str] = os.environ,
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int:
    """Threads that the process may run at once.

    The least of the processors in its affinity mask, the CPU quota of its control groups (version 1
    or 2, theirs and all groups above) and ``OMP_NUM_THREADS``; at least 1.
    """
    limits = [_affinity()]
    limits += [max(1, math.ceil(quota)) for quota in _cgroup_quotas(cgroup_root, membership)]
    omp = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if omp.isdigit() and int(omp) > 0:
        limits.append(int(omp))
    return min(limits)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def idle_processors(stat: Path = Path("/proc/stat"), wait: Callable[[float], None] = time.sleep) -> float | None:
    """Processors of the affinity mask that nobody used over a third of a second; None where that is not known."""
    before = _idle_and_total(stat)
    wait(LOOKED_AT)
    after = _idle_and_total(stat)
    passed = [(idle - idle0, total - total0) for (idle0, total0), (idle, total) in zip(before, after, strict=False)]
    if not passed or any(total <= 0 for _, total in passed):
        return None
    return sum(idle / total for idle, total in passed)


def _idle_and_total(stat: Path) -> list[tuple[float, float]]:
    """How long each processor of the affinity mask was idle, and how long it has been there."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found = []
    for line in _text(stat).splitlines():
        name, *fields = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in mine:
            # user, nice, system, idle, waiting for disks, interrupts, soft interrupts, taken by other machines
            times = [float(number) for number in fields[:8]]
            found.append((sum(times[3:5]), sum(times)))
    return found


def _cgroup_quotas(root: Path, membership: Path) -> Iterable[float]:
    """CPU quotas in processors, of every control group that this process is under."""
    for line in _text(membership).splitlines():
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            for folder in _upwards(root, group):
                quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in {controllers, "cpu"}:
                for folder in _upwards(root / mount, group):
                    yield from _ratio(
                        _text(folder / "cpu.cfs_quota_us").strip(),
                        _text(folder / "cpu.cfs_period_us").strip(),
                    )


def _upwards(root: Path, group: str) -> Iterable[Path]:
    """The folder of a control group and those above it, up to the root (a container sees only that)."""
    folder = root / group.lstrip("/")
    yield folder
    yield from (parent for parent in folder.parents if parent.is_relative_to(root))


def _ratio(quota: str, period: str) -> Iterable[float]:
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def peak_memory_mib() -> float:
    """The largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def available_memory_mib(
    cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Memory that the process may use: the machine's, or less where its control groups allow less; None if unknown."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if "SC_PHYS_PAGES" in os.sysconf_names else []
    limits += _cgroup_memory(cgroup_root, membership)
    return min(limits) // _MIB if limits else None


def _cgroup_memory(root: Path, membership: Path) -> Iterable[int]:
    """Memory limits in bytes, of every control group that this process is under."""
    for line in _text(membership).splitlines():
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            found = [folder / "memory.max" for folder in _upwards(root, group)]
        elif "memory" in controllers.split(","):
            found = [folder / "memory.limit_in_bytes" for folder in _upwards(root / "memory", group)]
        else:
            continue
        texts = [_text(path).strip() for path in found]
        yield from (int(text) for text in texts if text.isdigit())
