"""Worker processes, begun as copies of their parent, with which they share what is loaded: uvicorn would load all anew.

That takes less than half the memory, and a worker that died is replaced at once.
"""

import gc
import multiprocessing
import os
import signal

import uvicorn._subprocess
from uvicorn.supervisors import multiprocess


class _Worker(multiprocess.Process):
    def start(self) -> None:
        super().start()
        # The worker has this end: while its parent kept it too, the end of a worker that is asked for a sign of life
        # would not be seen, and waited for until it is due.
        self.child_conn.close()


def begin_as_copies() -> None:
    """From now on, in this process. To be called before it has connected to anything; its threads are not copied."""
    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]  # of another kind
    multiprocess.Process = _Worker  # type: ignore[misc]  # what uvicorn makes workers of
    # A signal that comes to a worker before it has its own handlers would be kept for the parent, and be lost.
    os.register_at_fork(after_in_child=_forget_signals)
    # A collection writes to all that it looks at, and what is written to is no longer shared.
    gc.collect()
    gc.freeze()


def _forget_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
