"""Creates, lists, revokes and verifies users' tokens; stores only their hashes."""

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select

from cdb_server import instants, model
from cdb_server.database.statements import AnyConnection, CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.errors import InvalidArgument, InvalidToken
from cdb_server.model import Clock
from cdb_server.schema import token

NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9 _.+@\-]{0,62}[A-Za-z0-9_.+@\-])?"


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself is not."""

    name: str
    created: datetime
    revoked: datetime | None


class Tokens:
    """The tokens of a master."""

    def __init__(self, database: Database, *, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str) -> str:
        """A new token for a user, told this once. Raises InvalidArgument when the name is unfit or has a token."""
        _check_name(name)
        # 256 random bits: nobody finds them by trying, so a plain hash keeps them as well as a slow one.
        secret = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            if connection.execute(_of(name)).first() is not None:
                raise InvalidArgument("name", f"{name} has a token: revoke it first")
            connection.execute(token.insert().values(sha256=_hash(secret), name=name, created=self._clock()))
        return secret

    def list(self) -> list[Token]:
        """All tokens ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(token.c.name, token.c.created, token.c.revoked).order_by(token.c.created, token.c.name)
            ).all()
        return [Token(*row) for row in rows]

    def revoke(self, name: str) -> None:
        """End a user's token. Raises InvalidArgument when the user has none."""
        _check_name(name)
        with self._database.write() as connection:
            valid = (token.c.name == name) & token.c.revoked.is_(None)
            if connection.execute(token.update().where(valid).values(revoked=self._clock())).rowcount == 0:
                raise InvalidArgument(
                    "name",
                    f"{name} has no token that is valid (upper and lower case matter): "
                    "'cdb-server token list' shows all",
                )


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user, and the sha256 of the token that was shown."""

    name: str
    sha256: str

    @classmethod
    def of(cls, name: str, secret: str) -> "Credentials":
        """What a user shows."""
        return cls(name, _hash(secret))

    def check(self, connection: AnyConnection) -> None:
        """Raises InvalidToken unless the token is that user's and valid."""
        if not re.fullmatch(NAME_PATTERN, self.name) or not _VALID_TOKEN.row(
            connection, name=self.name, sha256=self.sha256
        ):
            raise InvalidToken


class TokenVerifier:
    """Asks for the tokens, and no more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_valid(self, shown: Credentials) -> bool:
        """Whether a token is that user's and valid."""
        with suppress(InvalidToken), self._database.read_statement() as connection:
            shown.check(connection)
            return True
        return False


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidArgument(
            "name", f"{name[:80]!r} cannot name a user: use 1 to 64 letters, digits, spaces and _ . + - @"
        )


def _of(name: Any) -> Select[Any]:
    return select(token.c.sha256).where(token.c.name == name, token.c.revoked.is_(None))


_VALID_TOKEN = CompiledStatement(_of(bindparam("name")).where(token.c.sha256 == bindparam("sha256")))


def _hash(secret: str) -> str:
    return model.sha256_of(secret.encode("utf-8"))
