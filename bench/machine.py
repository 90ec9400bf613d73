"""What a run was made on, and how much of the machine others took meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_STAT = Path("/proc/stat")  # Linux; elsewhere nothing is known of steal or of others


class Disturbance(NamedTuple):
    """Shares of the whole machine's time, in percent: `steal` by the host, `others` by processes that were not ours."""

    steal: float
    others: float

    @property
    def doubt(self) -> str:
        """Why a figure taken meanwhile is doubtful; empty where it is not."""
        reasons = []
        if self.steal >= 5:
            reasons.append(f"steal {self.steal:.0f}%")
        if self.others >= 10:
            reasons.append(f"others used {self.others:.0f}% of the machine")
        return ", ".join(reasons)


class Disturbed:
    """Measures the disturbance from here to `since_then`, which counts our children once they were waited for."""

    def __init__(self) -> None:
        self._before = _times()
        self._ours = _ours()

    def since_then(self) -> Disturbance:
        now = _times()
        total = sum(now) - sum(self._before)
        if total <= 0:
            return Disturbance(0.0, 0.0)
        user, nice, system, _, _, irq, softirq, steal = (b - a for a, b in zip(self._before, now, strict=True))
        busy = user + nice + system + irq + softirq - (_ours() - self._ours)
        return Disturbance(round(100 * steal / total, 2), round(100 * max(0.0, busy) / total, 1))


def _times() -> tuple[float, ...]:
    """Seconds of all cores since they started: user, nice, system, idle, iowait, irq, softirq, steal (proc(5))."""
    if not _STAT.exists():
        return (0.0,) * 8
    tick = os.sysconf("SC_CLK_TCK")
    return tuple(int(field) / tick for field in _STAT.read_text().split("\n", 1)[0].split()[1:9])


def _ours() -> float:
    ours, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime + children.ru_utime + children.ru_stime


def facts() -> dict[str, Any]:
    """What somebody needs to know to read the figures."""
    return {
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "temporary_files_on": _filesystem(Path(tempfile.gettempdir()).resolve()),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, from the deepest mount point above it."""
    mounts = Path("/proc/mounts")
    best, kind = "", "unknown"
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, point, type_ = line.split()[:3]
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, type_
    return kind
