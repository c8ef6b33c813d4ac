"""The database behind the service, the only place with transactions: `Reader`, `Writer`, `Tokens` on a `Database`."""

from cdb_server.repository import cancellation
from cdb_server.repository.applying import Explaining
from cdb_server.repository.cancellation import Cancellation, Cancelled
from cdb_server.repository.connections import name_of, parse_url
from cdb_server.repository.database import Database
from cdb_server.repository.following import Following
from cdb_server.repository.fuse import Fuse
from cdb_server.repository.glance import Busy, Glance
from cdb_server.repository.history import History
from cdb_server.repository.inspection import Inspection, Unreadable
from cdb_server.repository.occupancy import occupy
from cdb_server.repository.reader import Reader
from cdb_server.repository.survey import Survey
from cdb_server.repository.tokens import Admission, Credentials, Tokens
from cdb_server.repository.writer import Upload, Writer, check_size

__all__ = [
    "Admission",
    "Busy",
    "Cancellation",
    "Cancelled",
    "Credentials",
    "Database",
    "Explaining",
    "Following",
    "Fuse",
    "Glance",
    "History",
    "Inspection",
    "Reader",
    "Survey",
    "Tokens",
    "Unreadable",
    "Upload",
    "Writer",
    "cancellation",
    "check_size",
    "name_of",
    "occupy",
    "parse_url",
]
