"""The database behind the service, the only place with transactions: `Reader`, `Writer`, `Tokens` on a `Database`."""

from cdb_server.repository.database import Database
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Upload, Writer, check_size

__all__ = ["Database", "Reader", "Tokens", "Upload", "Writer", "check_size"]
