"""What needs another server: following it, and comparing journals. Alone imports the client."""

from cdb_server.mirror.comparison import Comparison, compare, journal_of, own_journal
from cdb_server.mirror.follower import Follower
from cdb_server.mirror.keeper import kept_running

__all__ = ["Comparison", "Follower", "compare", "journal_of", "kept_running", "own_journal"]
