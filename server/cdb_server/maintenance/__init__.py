"""What an operator does beside serving: prove a database, back it up, put it back in place."""

from cdb_server.maintenance.backup import Restored, back_up, restore
from cdb_server.maintenance.verification import Verification, verify

__all__ = ["Restored", "Verification", "back_up", "restore", "verify"]
