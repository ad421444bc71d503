"""A child that ends with its parent, however the parent ended (kill -9 included).

Standard input is a pipe that only the parent holds open: its end means that the parent is gone. On Linux the kernel is
asked as well, which also reaches a child that is stopped or busy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1
ORPHANED = 71  # exit code that nobody reads


def end_with_parent(parent: int) -> None:
    """Call first in the child. `parent` is the process id that the parent gave: it may be gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while os.read(0, 64):
        pass
    os._exit(ORPHANED)
