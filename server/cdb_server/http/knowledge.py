"""What every answer says of the server's knowledge: how far it knows the journal and, on a copy, how old that is."""

from cdb_server.errors import Unavailable
from cdb_server.repository import Reader


def headers(reader: Reader) -> dict[str, str]:
    """`CDB-Serial`: the answer knows the journal at least up to there. `CDB-Age`, on a copy: seconds since the master
    was heard. None when the database cannot be read. Blocks."""
    try:
        serial, age = reader.knowledge()
    except Unavailable:
        return {}
    return {"CDB-Serial": str(serial)} | ({} if age is None else {"CDB-Age": str(int(age))})
