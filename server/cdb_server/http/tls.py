"""TLS by the server itself: its certificate, and the authority whose certificates its callers must show."""

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
import uvloop
from uvicorn.config import STARTUP_FAILURE

from cdb_server.errors import TlsRefused
from cdb_server.settings import Settings, Tls

log = logging.getLogger(__name__)


def check(tls: Tls) -> None:
    """Read what the settings name, as each worker will. Raises TlsRefused with a sentence for the operator."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for variable, name in (("CDB_TLS_CERT", tls.cert), ("CDB_TLS_KEY", tls.key), ("CDB_TLS_CLIENT_CA", tls.client_ca)):
        if name is None:
            continue
        try:
            with open(name, "rb") as file:
                file.read(1)
        except OSError as error:
            raise TlsRefused(f"{variable} {name} cannot be read: {error.strerror}") from error
    try:
        # Without this, a worker would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsRefused(
            f"CDB_TLS_CERT {tls.cert} and CDB_TLS_KEY {tls.key} are not a certificate and its key in PEM"
            f"{f' ({error.reason})' if error.reason else ''}"
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise TlsRefused(f"CDB_TLS_CLIENT_CA {tls.client_ca} holds no certificate in PEM") from error


class Configuration(uvicorn.Config):
    """uvicorn's, with TLS 1.2 at least, and with deadlines on what TLS does before and after HTTP."""

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        tls = settings.tls
        if tls is not None:
            of_uvicorn |= {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key, "ssl_ca_certs": tls.client_ca}
            if tls.client_ca is not None:
                of_uvicorn["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        super().__init__(**of_uvicorn)
        self._settings = settings

    def load(self) -> None:
        """What each worker begins with: it reads the files anew."""
        if self._settings.tls is not None:
            try:
                check(self._settings.tls)
            except TlsRefused as error:
                log.error("a worker cannot start: %s", error)
                sys.exit(STARTUP_FAILURE)
        super().load()
        if self.ssl is not None:
            self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """A loop whose connections have the service's deadlines."""
        return partial(_Loop, self._settings)


class _Loop(uvloop.Loop):
    """uvicorn has no settings for these: by default, a handshake may take a minute, and a farewell half of one."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    # uvloop's own has many more parameters, by name; whatever they are, all are passed on.
    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.AbstractServer:  # type: ignore[override]
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = self._settings.header_deadline
            kwargs["ssl_shutdown_timeout"] = self._settings.stall_deadline
        return await super().create_server(*args, **kwargs)


def _no_password() -> str:
    raise TlsRefused("the key in CDB_TLS_KEY is encrypted: give one without a password, readable to the server alone")
