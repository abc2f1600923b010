"""The allocator settings of a worker process."""

from __future__ import annotations

import ctypes

import pyarrow as pa

# mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_TRIM_NBYTES = 8 << 20
_MMAP_NBYTES = 4 << 20
_ARENAS = 2


def tune_allocator() -> None:
    """One heap for Arrow, DuckDB and Python that keeps its pages; to be called before threads start.

    Every epoch allocates and frees blocks of megabytes. Arrow's own pool beside malloc, and an arena for each thread, hold
    a quarter more memory; malloc by default gives pages back that are needed again at once (a tenth of the CPU time).
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        for option, value in ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, _MMAP_NBYTES), (_M_TRIM_THRESHOLD, _TRIM_NBYTES)):
            mallopt(option, value)
