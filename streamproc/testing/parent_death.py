"""Processes that must not outlive the one that started them, not even if that one is killed by SIGKILL."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the thread that started it ends (prctl(2)). Linux only."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
