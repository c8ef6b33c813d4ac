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

# Seconds between two rounds over all servers: the first pause, doubled each time, and the longest.
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 3.0
# Seconds for which later calls skip a server that failed.
COOLDOWN_SECONDS = 30.0
# Seconds: with fewer left, no attempt is made; a shorter limit on silence is not applied.
MIN_ATTEMPT_SECONDS = 0.1
MIN_SILENCE_SECONDS = 1.0
# Seconds to wait for a silent server while others can be asked; seconds from which a failed attempt is logged.
FIRST_SILENCE_SECONDS = 5.0
LOGGED_ATTEMPT_SECONDS = 2.0

Answer = TypeVar("Answer")

# The end of each address's cooldown, by time.monotonic, for all clients of the process. Each access is a single dict
# operation: threads need no lock, which a fork could leave locked.
_cooldowns: dict[str, float] = {}


class Failover:
    """Sends a call to the servers of one service, at `path` of their base URLs. Without `retry`: once to each."""

    def __init__(self, servers: Sequence[str], path: str, timeout: float, *, retry: bool = True) -> None:
        self._servers = list(dict.fromkeys(servers))
        self._path = path
        self._timeout = timeout
        self._retry = retry

    def call(self, attempt: Callable[[str, AttemptBudget], Answer], seconds: float | None = None) -> Answer:
        """Ask one server after another until an `attempt` succeeds; it raises AttemptFailed otherwise.

        The call ends after `seconds`, else after the client's timeout. Raises CdbError.
        """
        if not self._servers:
            raise errors.ServerUnreachable("no server is named: set CDB_SERVER, or name one")
        attempts = _Attempts(self._timeout if seconds is None else seconds, rounds=2 if self._retry else 1)
        pause = FIRST_PAUSE_SECONDS
        now = time.monotonic()
        asked = [server for server in self._servers if _cooldowns.get(server + self._path, 0.0) <= now] or self._servers
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
                # Ask the servers in cooldown.
                continue
            asked = [server for server in self._servers if server not in attempts.exhausted]
            # AsOfNotReached is an answer: ask the other servers once more for a better one, then let the caller decide
            # whether to wait.
            has_answer = any(isinstance(failure, errors.AsOfNotReached) for failure in attempts.failures.values())
            has_time = attempts.seconds_left() >= MIN_ATTEMPT_SECONDS
            if not self._retry or not asked or not has_time or (again and has_answer):
                raise self._summary_error(attempts)
            log.warning(
                "%s; retrying for %g s",
                "; ".join(attempts.failures[server].message for server in asked if server in attempts.failures),
                attempts.seconds,
            )
            again = True
            # At most half of the time left, so that a server that comes back late is still asked.
            time.sleep(max(0.0, min(pause * _jitter(), attempts.seconds_left() / 2)))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _summary_error(self, attempts: _Attempts) -> errors.CdbError:
        """Summarise what each server said last, and how often it was asked."""
        told = []
        for server in self._servers:
            if server in attempts.failures:
                times = attempts.counts[server]
                often = f" (asked {times} times within {attempts.seconds:g} s)" if times > 1 else ""
                message = attempts.failures[server].message
                # A fault does not name its server.
                named = message if server in message or len(self._servers) == 1 else f"{server}: {message}"
                told.append(f"{named}{often}")
            else:
                told.append(f"{server}: not asked: no time was left")
        failures = list(attempts.failures.values())
        # Prefer what a server said to another's silence.
        temporary = [failure for failure in failures if isinstance(failure, errors.CdbTemporaryError)] or failures
        telling = next((f for f in temporary if not isinstance(f, errors.ServerUnreachable)), temporary[0])
        words = told[0] if len(told) == 1 else "no server could answer: " + "; ".join(told)
        return telling.retold(words)


class _Attempts:
    """Records the attempts of one call."""

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
        """Share the time left among so many servers and the next round, if any; None where too little is left.

        The last server may take all of it while its answer arrives.
        """
        left = self.seconds_left()
        if left < MIN_ATTEMPT_SECONDS and self.failures:
            return None
        # In later rounds do not shorten it: a slow server would never have enough.
        patience = left / (servers + (0 if self.failures else self._rounds - 1))
        if servers > 1 and not self.failures:
            patience = min(patience, FIRST_SILENCE_SECONDS)
        self._begun = time.monotonic()
        return AttemptBudget(
            time.monotonic() + left / servers, patience if patience >= MIN_SILENCE_SECONDS else left / servers
        )

    def last_seconds(self) -> float:
        """Return how long the last attempt took."""
        return time.monotonic() - self._begun

    def add_failure(self, server: str, failed: AttemptFailed) -> None:
        """Record a failed attempt."""
        self.counts[server] += 1
        self.failures[server] = failed.error
        self._last_retry[server] = failed.retry
        if failed.retry is Retry.NEVER or (failed.retry is Retry.ONCE and server in self._retried):
            self.exhausted.add(server)

    def take_immediate_retry(self, server: str) -> bool:
        """Return whether to retry a server at once: only the first time that its answer was damaged or cut off."""
        if self._last_retry[server] not in (Retry.ONCE, Retry.IMMEDIATELY) or server in self._retried:
            return False
        self._retried.add(server)
        return True


def _jitter() -> float:
    # Thousands of jobs that failed together must not retry together.
    return random.uniform(0.5, 1.5)  # noqa: S311  # nothing is secret here
