"""The logger of this package, `cdb`: what is waited for, and what is done without."""

import logging

log = logging.getLogger("cdb")
# A program that does not ask for them is not shown them.
log.addHandler(logging.NullHandler())
