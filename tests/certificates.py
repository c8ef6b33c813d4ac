"""Certificates for tests: an authority of its own, a server's certificate, callers' certificates, as PEM files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from cdb_server.settings import Tls


@dataclass(frozen=True)
class Certificates:
    """The files of one authority, in one folder."""

    folder: Path

    @property
    def ca(self) -> str:
        """The authority's own certificate."""
        return str(self.folder / "ca.pem")

    @property
    def client(self) -> str:
        """A caller's certificate and its key."""
        return str(self.folder / "client.pem")

    @property
    def tls(self) -> Tls:
        """The settings of a server that asks for no certificate."""
        return Tls(str(self.folder / "cert.pem"), str(self.folder / "key.pem"))

    @property
    def flags(self) -> list[str]:
        """The same as flags of `cdb-server serve`."""
        return ["--tls-cert", self.tls.cert, "--tls-key", self.tls.key]

    def encrypted_key(self) -> bytes:
        """The server's key with a password."""
        key = serialization.load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )

    def context(self) -> ssl.SSLContext:
        """A caller that knows the authority and shows no certificate."""
        return ssl.create_default_context(cafile=self.ca)


def make(folder: Path, *names: str) -> Certificates:
    """A new authority, a server's certificate for 127.0.0.1 or the given names, and a caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert(*(names or ("127.0.0.1",)))
    server.private_key_pem.write_to_path(folder / "key.pem")
    for number, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(folder / "cert.pem", append=number > 0)
    caller = authority.issue_cert("alice@example.org")
    caller.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    return Certificates(folder)
