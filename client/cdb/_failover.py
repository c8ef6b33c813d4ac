"""Choose the server for each attempt, and decide when to retry, skip or give up: backoff, cooldown, deadline.

Rule 9: "Writes repeat safely: what is already so is not written again." So they are repeated like reads.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from cdb import _exceptions as errors
from cdb._transport.failures import AttemptFailed, Retry
from cdb._transport.timeouts import AttemptBudget

log = logging.getLogger("cdb")
# Without a handler of the program, warnings would go to stderr.
log.addHandler(logging.NullHandler())

# Between one round of all servers and the next: the first, doubled each time, and the longest.
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 3.0
# How long a server that failed is passed over, by later calls.
COOLDOWN_SECONDS = 30.0
# What is left below this is not worth another try, nor this patience with a server that is silent.
MIN_ATTEMPT_SECONDS = 0.1
MIN_SILENCE_SECONDS = 1.0
# With a server that is silent at first, while others can be asked; and how long a try is that is worth a word.
FIRST_SILENCE_SECONDS = 5.0
LOGGED_ATTEMPT_SECONDS = 2.0

Answer = TypeVar("Answer")

# By address, until when, by time.monotonic: for all clients of the process. Each access is one operation of a dict, so
# that threads need no lock, which a fork could leave held.
_cooldowns: dict[str, float] = {}


class Failover:
    """The servers that have one service, at `path` of their base URLs. Without `retry`, each is asked once a call."""

    def __init__(self, servers: Sequence[str], path: str, timeout: float, *, retry: bool = True) -> None:
        self._servers = list(dict.fromkeys(servers))
        self._path = path
        self._timeout = timeout
        self._retry = retry

    def call(self, attempt: Callable[[str, AttemptBudget], Answer], seconds: float | None = None) -> Answer:
        """The first answer to a question that is put to one server at a time, and raises Failed.

        The deadline counts from now: so many `seconds`, or the timeout. Raises CdbError.
        """
        if not self._servers:
            raise errors.ServerUnreachable("no server is named: set CDB_SERVER, or name one")
        attempts = _Attempts(self._timeout if seconds is None else seconds, rounds=2 if self._retry else 1)
        pause = FIRST_PAUSE_SECONDS
        asked = [server for server in self._servers if not self._is_cooling_down(server)] or self._servers
        again = False
        while True:
            for position, server in enumerate(asked):
                while (budget := attempts.budget(len(asked) - position)) is not None:
                    try:
                        answer = attempt(server, budget)
                    except AttemptFailed as failed:
                        attempts.add_failure(server, failed)
                        if server != asked[-1] and attempts.last_seconds() > LOGGED_ATTEMPT_SECONDS:
                            log.warning("%s; the next server is asked", failed.error.message)
                        if not failed.healthy:
                            _cooldowns[server + self._path] = time.monotonic() + COOLDOWN_SECONDS * _jitter()
                        if not (self._retry and attempts.take_immediate_retry(server)):
                            break
                        log.info("%s; it is asked again", failed.error.message)
                    else:
                        _cooldowns.pop(server + self._path, None)
                        return answer
            asked = [server for server in self._servers if server not in attempts.failures]
            if asked and attempts.seconds_left() >= MIN_ATTEMPT_SECONDS:
                # Those that were passed over.
                continue
            asked = [server for server in self._servers if server not in attempts.exhausted]
            # "no" to an as_of is an answer. Who failed in passing is asked once more for a better one; to wait longer
            # is for the caller to decide.
            if (
                not self._retry
                or not asked
                or attempts.seconds_left() < MIN_ATTEMPT_SECONDS
                or (again and attempts.as_of_not_reached())
            ):
                raise self._summary_error(attempts)
            log.warning(
                "%s; asked again until %g s are over",
                "; ".join(attempts.failures[server].message for server in asked if server in attempts.failures),
                attempts.seconds,
            )
            again = True
            # What is left is halved, so that a server that comes back late is met.
            time.sleep(max(0.0, min(pause * _jitter(), attempts.seconds_left() / 2)))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _is_cooling_down(self, server: str) -> bool:
        return _cooldowns.get(server + self._path, 0.0) > time.monotonic()

    def _summary_error(self, attempts: _Attempts) -> errors.CdbError:
        """The error of a call: what each server said last, and how often it was asked."""
        told = []
        for server in self._servers:
            if server in attempts.failures:
                times = attempts.counts[server]
                often = f" (asked {times} times within {attempts.seconds:g} s)" if times > 1 else ""
                message = attempts.failures[server].message
                # A fault speaks of the question alone.
                named = message if server in message or len(self._servers) == 1 else f"{server}: {message}"
                told.append(f"{named}{often}")
            else:
                told.append(f"{server}: not asked, for the time was up")
        failures = list(attempts.failures.values())
        # What a server said is worth more than that another was silent.
        temporary = [failure for failure in failures if isinstance(failure, errors.CdbTemporaryError)] or failures
        telling = next((f for f in temporary if not isinstance(f, errors.ServerUnreachable)), temporary[0])
        words = told[0] if len(told) == 1 else "no server could answer: " + "; ".join(told)
        return telling.retold(words)


class _Attempts:
    """What has become of one call so far."""

    def __init__(self, seconds: float, rounds: int) -> None:
        self.seconds = round(seconds, 1)
        self._end = time.monotonic() + seconds
        self._begun = time.monotonic()
        self._rounds = rounds
        self.failures: dict[str, errors.CdbError] = {}
        self.counts: Counter[str] = Counter()
        self.exhausted: set[str] = set()
        self._retried: set[str] = set()
        self._last_retry: dict[str, Retry] = {}

    def seconds_left(self) -> float:
        return self._end - time.monotonic()

    def budget(self, servers: int) -> AttemptBudget | None:
        """What the first of so many servers may take: the others get as much, and so does one more try, if any.

        None where too little is left. While an answer flows, the last may take all.
        """
        left = self.seconds_left()
        if left < MIN_ATTEMPT_SECONDS and self.failures:
            return None
        # One that was silent before is not given less and less: what it needs it would never get.
        patience = left / (servers + (0 if self.failures else self._rounds - 1))
        if servers > 1 and not self.failures:
            patience = min(patience, FIRST_SILENCE_SECONDS)
        self._begun = time.monotonic()
        return AttemptBudget(
            time.monotonic() + left / servers, patience if patience >= MIN_SILENCE_SECONDS else left / servers
        )

    def last_seconds(self) -> float:
        """How long the last try took."""
        return time.monotonic() - self._begun

    def add_failure(self, server: str, failed: AttemptFailed) -> None:
        """Note what a try came to."""
        self.counts[server] += 1
        self.failures[server] = failed.error
        self._last_retry[server] = failed.retry
        if failed.retry is Retry.NEVER or (failed.retry is Retry.ONCE and server in self._retried):
            self.exhausted.add(server)

    def take_immediate_retry(self, server: str) -> bool:
        """Whether to ask a server again at once: the first time that its answer did not come whole."""
        if self._last_retry[server] not in (Retry.ONCE, Retry.IMMEDIATELY) or server in self._retried:
            return False
        self._retried.add(server)
        return True

    def as_of_not_reached(self) -> bool:
        return any(isinstance(failure, errors.AsOfNotReached) for failure in self.failures.values())


def _jitter() -> float:
    # Thousands of jobs that failed together shall not come again together.
    return random.uniform(0.5, 1.5)  # noqa: S311  # nothing is secret here
