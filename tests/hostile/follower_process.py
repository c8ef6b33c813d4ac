"""`python -m tests.hostile.follower_process DATABASE MASTER SECONDS`: run the following process of a mirror.

It follows as `cdb-server mirror` does, from the same code. Where it stops, it goes on at the next line of its standard
input, as a mirror does that is started anew with --resume; at the end of that, it ends.
"""

import logging
import logging.config
import sys
import threading

from cdb_server.database.transactions import Database
from cdb_server.logs import LOGGING
from cdb_server.mirror import Follower
from cdb_server.repository.mirror_writer import MirrorWriter

INTERVAL = 0.02


def main(database: str, master: str, seconds: str) -> None:
    """Follow until standard input ends; an answer may take so many seconds."""
    logging.config.dictConfig(LOGGING)
    # Hundreds of lies come within a minute, and each is to be told.
    for handler in logging.getLogger().handlers:
        handler.filters.clear()
    ended = threading.Event()
    resumed = threading.Semaphore(0)

    def listen() -> None:
        for _ in sys.stdin:
            resumed.release()
        ended.set()
        resumed.release()

    threading.Thread(target=listen, daemon=True).start()
    with Database.open(database) as opened:
        following = MirrorWriter(opened)
        while not ended.is_set():
            following.start_following(master, resume=True)
            Follower(master, following, poll_seconds=INTERVAL, answer_seconds=float(seconds)).follow(ended)
            if not ended.is_set():
                resumed.acquire()


if __name__ == "__main__":
    main(*sys.argv[1:])
