"""The servers of a client: asked in order of preference, again and again while that may help, until the deadline.

Rule 9: "Writes repeat safely: what is already so is not written again." So they are repeated like reads.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from cdb import _exceptions as errors
from cdb._deadline import Share
from cdb._failures import Again, Failed
from cdb._log import log

# Between one round of all servers and the next: the first, doubled each time, and the longest.
PAUSE_SECONDS = 0.1
LONGEST_PAUSE = 3.0
# How long a server that failed is passed over, by later calls.
REST_SECONDS = 30.0
# What is left below this is not worth another try, nor this patience with a server that is silent.
LEAST_SECONDS = 0.1
LEAST_PATIENCE = 1.0
# With a server that is silent at first, while others can be asked; and how long a try is that is worth a word.
FIRST_PATIENCE = 5.0
LONG_SECONDS = 2.0

Answer = TypeVar("Answer")

# By address, until when, by time.monotonic: for all clients of the process. Each access is one operation of a dict, so
# that threads need no lock, which a fork could leave held.
_resting: dict[str, float] = {}


class Servers:
    """The servers that have one service, at `path` of their base URLs. Without `retry`, each is asked once a call."""

    def __init__(self, servers: Sequence[str], path: str, timeout: float, *, retry: bool = True) -> None:
        self._servers = list(dict.fromkeys(servers))
        self._path = path
        self._timeout = timeout
        self._retry = retry

    def ask(self, question: Callable[[str, Share], Answer], seconds: float | None = None) -> Answer:
        """The first answer to a question that is put to one server at a time, and raises Failed.

        The deadline counts from now: so many `seconds`, or the timeout. Raises CdbError.
        """
        if not self._servers:
            raise errors.ServerUnreachable("no server is named: set CDB_SERVER, or name one")
        call = _Call(self._timeout if seconds is None else seconds, rounds=2 if self._retry else 1)
        pause = PAUSE_SECONDS
        asked = [server for server in self._servers if not self._rests(server)] or self._servers
        again = False
        while True:
            for position, server in enumerate(asked):
                while (share := call.share(len(asked) - position)) is not None:
                    try:
                        answer = question(server, share)
                    except Failed as failed:
                        call.failed(server, failed)
                        if server != asked[-1] and call.took() > LONG_SECONDS:
                            log.warning("%s; the next server is asked", failed.error.message)
                        if not failed.sound:
                            _resting[server + self._path] = time.monotonic() + REST_SECONDS * _jitter()
                        if not (self._retry and call.may_repeat(server)):
                            break
                        log.info("%s; it is asked again", failed.error.message)
                    else:
                        _resting.pop(server + self._path, None)
                        return answer
            asked = [server for server in self._servers if server not in call.failures]
            if asked and call.left() >= LEAST_SECONDS:
                # Those that were passed over.
                continue
            asked = [server for server in self._servers if server not in call.hopeless]
            # "no" to an as_of is an answer. Who failed in passing is asked once more for a better one; to wait longer
            # is for the caller to decide.
            if not self._retry or not asked or call.left() < LEAST_SECONDS or (again and call.as_of_not_reached()):
                raise self._told(call)
            log.warning(
                "%s; asked again until %g s are over",
                "; ".join(call.failures[server].message for server in asked if server in call.failures),
                call.seconds,
            )
            again = True
            # What is left is halved, so that a server that comes back late is met.
            time.sleep(max(0.0, min(pause * _jitter(), call.left() / 2)))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _rests(self, server: str) -> bool:
        return _resting.get(server + self._path, 0.0) > time.monotonic()

    def _told(self, call: _Call) -> errors.CdbError:
        """The error of a call: what each server said last, and how often it was asked."""
        told = []
        for server in self._servers:
            if server in call.failures:
                times = call.tries[server]
                often = f" (asked {times} times within {call.seconds:g} s)" if times > 1 else ""
                message = call.failures[server].message
                # A fault speaks of the question alone.
                named = message if server in message or len(self._servers) == 1 else f"{server}: {message}"
                told.append(f"{named}{often}")
            else:
                told.append(f"{server}: not asked, for the time was up")
        failures = list(call.failures.values())
        # What a server said is worth more than that another was silent.
        temporary = [failure for failure in failures if isinstance(failure, errors.CdbTemporaryError)] or failures
        telling = next((f for f in temporary if not isinstance(f, errors.ServerUnreachable)), temporary[0])
        words = told[0] if len(told) == 1 else "no server could answer: " + "; ".join(told)
        return telling.retold(words)


class _Call:
    """What has become of one call so far."""

    def __init__(self, seconds: float, rounds: int) -> None:
        self.seconds = round(seconds, 1)
        self._end = time.monotonic() + seconds
        self._begun = time.monotonic()
        self._rounds = rounds
        self.failures: dict[str, errors.CdbError] = {}
        self.tries: Counter[str] = Counter()
        self.hopeless: set[str] = set()
        self._repeated: set[str] = set()
        self._last: dict[str, Again] = {}

    def left(self) -> float:
        return self._end - time.monotonic()

    def share(self, servers: int) -> Share | None:
        """What the first of so many servers may take: the others get as much, and so does one more try, if any.

        None where too little is left. While an answer flows, the last may take all.
        """
        left = self.left()
        if left < LEAST_SECONDS and self.failures:
            return None
        # One that was silent before is not given less and less: what it needs it would never get.
        patience = left / (servers + (0 if self.failures else self._rounds - 1))
        if servers > 1 and not self.failures:
            patience = min(patience, FIRST_PATIENCE)
        self._begun = time.monotonic()
        return Share(time.monotonic() + left / servers, patience if patience >= LEAST_PATIENCE else left / servers)

    def took(self) -> float:
        """How long the last try took."""
        return time.monotonic() - self._begun

    def failed(self, server: str, failed: Failed) -> None:
        """Note what a try came to."""
        self.tries[server] += 1
        self.failures[server] = failed.error
        self._last[server] = failed.again
        if failed.again is Again.NEVER or (failed.again is Again.ONCE and server in self._repeated):
            self.hopeless.add(server)

    def may_repeat(self, server: str) -> bool:
        """Whether to ask a server again at once: the first time that its answer did not come whole."""
        if self._last[server] not in (Again.ONCE, Again.AT_ONCE) or server in self._repeated:
            return False
        self._repeated.add(server)
        return True

    def as_of_not_reached(self) -> bool:
        return any(isinstance(failure, errors.AsOfNotReached) for failure in self.failures.values())


def _jitter() -> float:
    # Thousands of jobs that failed together shall not come again together.
    return random.uniform(0.5, 1.5)  # noqa: S311  # nothing is secret here
