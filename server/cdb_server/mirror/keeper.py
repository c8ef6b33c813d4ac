"""A process of its own for the following, begun again when it dies: it and the serving do not take each other down."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# Seconds: before a process that died is begun again, and until one that is told to end is killed.
PAUSE = 1.0
GRACE = 10.0


@contextmanager
def kept_running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a process of its own while the block lasts. It returns when done, or when its event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(work, ended), name="keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(GRACE + PAUSE)


def _keep(work: Callable[[threading.Event], None], ended: threading.Event) -> None:
    context = multiprocessing.get_context("spawn")
    while not ended.is_set():
        process = context.Process(target=_run, args=(work, os.getpid()), name="following")
        process.start()
        while process.is_alive() and not ended.wait(0.1):
            process.join(0.1)
        if process.is_alive():
            process.terminate()
            process.join(GRACE)
            process.kill()
        process.join()
        if process.exitcode == 0:
            return
        if not ended.is_set():
            log.error("the following process died (exit status %s), and is begun again", process.exitcode)
            ended.wait(PAUSE)


def _run(work: Callable[[threading.Event], None], parent: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # A terminal sends it to all: the parent says when it is time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            if ended.wait(PAUSE):
                return
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    work(ended)
