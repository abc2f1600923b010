"""What every peer reports about its run, as one JSON line on stdout."""

from __future__ import annotations

import json
import resource
import sys
import time


class Figures:
    """Counts the records that pass and times them from the first on: steady means without start-up."""

    def __init__(self, name: str) -> None:
        self.name, self.records, self.windows, self.in_windows = name, 0, 0, 0
        self.began = self.cpu_began = 0.0

    def saw(self, records: int) -> None:
        """Called before `records` further ones are worked on."""
        if not self.began:
            self.began, self.cpu_began = time.perf_counter(), cpu_s()
        self.records += records

    def wrote(self, count: int) -> None:
        """Called for each window that is written, with its count of records."""
        self.windows, self.in_windows = self.windows + 1, self.in_windows + count

    def report(self, lost: int) -> None:
        """Print the line; `lost` are the records that were dropped as late."""
        seconds, cpu = time.perf_counter() - self.began, cpu_s() - self.cpu_began
        usage = resource.getrusage(resource.RUSAGE_SELF)
        line = {
            "name": self.name,
            "records": self.records,
            "seconds": round(seconds, 3),
            "records_per_s": round(self.records / seconds),
            "cpu_s": round(cpu, 3),
            "records_per_cpu_s": round(self.records / cpu),
            "rss_mb": usage.ru_maxrss // 1024,
            "windows": self.windows,
            "lost": lost,
        }
        print(json.dumps(line), file=sys.stdout, flush=True)


def cpu_s() -> float:
    """User and system seconds of this process and its children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)
