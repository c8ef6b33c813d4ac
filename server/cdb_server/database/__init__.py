"""Connects to SQLite and PostgreSQL; parses a database URL, and displays it without its password."""

from sqlalchemy import URL, exc, make_url

from cdb_server.errors import DatabaseUnusable


def parse_url(url: str) -> URL:
    """The database that an URL names. Raises DatabaseUnusable for one that cannot be used."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise DatabaseUnusable(f"{url!r} is not a database URL like sqlite:///cdb.sqlite") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise DatabaseUnusable(
        f"{display_url(parsed)} cannot be used: name a file, as sqlite:///cdb.sqlite, or postgresql://user@host/database"
    )


def display_url(url: URL) -> str:
    """The URL as it may be shown: without its password."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
