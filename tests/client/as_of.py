"""As-of instants for tests: a master can be asked about what it has just accepted only some seconds later."""

import time
from datetime import datetime

import cdb


def as_of_after(client: cdb.Calibration, created: datetime) -> str:
    """Wait until an instant after `created` can be asked about, and answer it."""
    while (complete_until := client.get_status().complete_until) <= created:
        # It follows the server's clock.
        time.sleep(0.2)
    return complete_until.isoformat()
