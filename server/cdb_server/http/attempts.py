"""The log of attempts to write that were refused: some in full, the rest counted, so that nobody can fill it."""

import asyncio
import logging

log = logging.getLogger(__name__)

# Lines in full, by one worker, in so many seconds.
IN_FULL = 10
SECONDS = 60.0
# Beside HTTP's status for the others.
OF_ANOTHER_SITE = 0


class Attempts:
    """The refused attempts of one worker. For the thread of its event loop alone."""

    def __init__(self, in_full: int = IN_FULL, seconds: float = SECONDS) -> None:
        self._in_full = in_full
        self._seconds = seconds
        self._told = 0
        self._untold = {403: 0, 401: 0, OF_ANOTHER_SITE: 0}
        self._period_end: asyncio.TimerHandle | None = None

    def refused(self, status: int, peer: str, user: str, *, of_another_site: bool = False) -> None:
        """Log an attempt, or count it. `peer` is an address; `user` is whatever was sent.

        `of_another_site` is a form that a browser sent, and not from a page of ours.
        """
        if self._period_end is None:
            self._period_end = asyncio.get_running_loop().call_later(self._seconds, self.tell)
        if self._told == self._in_full:
            self._untold[OF_ANOTHER_SITE if of_another_site else status] += 1
            return
        self._told += 1
        if of_another_site:
            log.warning("refused to write: a form not of this site's pages, from %s, as user %a", peer, user[:64])
            return
        # As ASCII, for a name with a line break in it would be two lines.
        if status == 403:
            log.warning("refused to write: %s is outside the allowed networks, as user %a", peer, user[:64])
        else:
            log.warning("refused to write: no valid token of user %a, from %s", user[:64], peer)

    def tell(self) -> None:
        """End the period: say how many were counted since its beginning."""
        if self._period_end is not None:
            self._period_end.cancel()
            self._period_end = None
        networks, tokens, sites = self._untold[403], self._untold[401], self._untold[OF_ANOTHER_SITE]
        self._told = 0
        self._untold = {403: 0, 401: 0, OF_ANOTHER_SITE: 0}
        if sites:
            log.warning(
                "refused to write: %d more forms not of this site's pages within %g seconds", sites, self._seconds
            )
        if networks or tokens:
            log.warning(
                "refused to write: %d more attempts within %g seconds, %d outside the allowed networks, "
                "%d without a valid token",
                networks + tokens,
                self._seconds,
                networks,
                tokens,
            )
