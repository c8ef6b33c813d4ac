"""The log of attempts to write that were refused. How many lines of it there may be is bounded by `logs.py`."""

import logging

log = logging.getLogger(__name__)


def refused(status: int, peer: str, user: str) -> None:
    """Log an attempt that was refused (401 or 403). `peer` is an address; `user` is whatever was sent."""
    # As ASCII, for a name with a line break in it would be two lines.
    if status == 403:
        log.warning("refused to write: %s is outside the allowed networks, as user %a", peer, user[:64])
    else:
        log.warning("refused to write: no valid token of user %a, from %s", user[:64], peer)


def of_another_site(peer: str, user: str) -> None:
    """Log a form that a browser sent, and not from a page of ours."""
    log.warning("refused to write: a form not of this site's pages, from %s, as user %a", peer, user[:64])


def by_another_name(peer: str, host: str) -> None:
    """Log a call that named the server as it is not known."""
    log.warning("refused to write: from %s, to a server named %a, by which this one is not known", peer, host[:64])
