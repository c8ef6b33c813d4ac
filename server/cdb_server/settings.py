"""Holds the settings and their defaults: addresses, networks, TLS, limits on size, time, memory and threads."""

import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PAYLOAD_BYTES = 32 * 2**20

LOOPBACK_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Tls:
    """The PEM files of TLS: the server's certificate, its key, and the authority whose certificates callers show."""

    cert: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server is told. Sizes are bytes, times seconds.

    The fields below the blank line are the service's limits; nobody asked to set them from outside.
    """

    database: str
    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = "http://127.0.0.1:8080"
    workers: int = 2
    max_payload: int = MAX_PAYLOAD_BYTES
    write_networks: tuple[Network, ...] = LOOPBACK_NETWORKS
    legacy_write_networks: tuple[Network, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    tls: Tls | None = None
    read_only: bool = False

    max_rows: int = 100_000
    max_entries: int = 1_000
    threads: int = 8
    # Of answers that each worker keeps ready, and the longest that it finds on the event loop.
    response_cache_bytes: int = 48 * 2**20
    nonblocking_payload_bytes: int = 256 * 2**10
    nonblocking_rows: int = 200
    # Of memory in each worker: for uploads; for large answers, and for those that are made before they are counted; and
    # for archives and large questions, which nobody needs to ask, so that who asks them takes it from nobody else.
    upload_memory_bytes: int = 240 * 2**20
    answer_memory_bytes: int = 112 * 2**20
    small_answer_memory_bytes: int = 48 * 2**20
    question_memory_bytes: int = 64 * 2**20
    max_header_bytes: int = 64 * 2**10
    header_seconds: float = 15.0
    stall_seconds: float = 15.0
    # In which an answer must have begun, to who sends no more, and may be gone.
    half_closed_seconds: float = 2.0
    min_bytes_per_second: int = 10_000

    @property
    def max_body(self) -> int:
        """The longest request body: a payload in base64 with line breaks, and the envelope around it.

        Half as much again as the payload, where base64 takes a third: so a payload a little too large is still told so
        in a typed fault.
        """
        return self.max_payload * 3 // 2 + 2**16


def parse_bind_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, IPv6 hosts in brackets. Raises ValueError with a sentence for the operator."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address like 127.0.0.1:8080")
    return host, int(port)


def parse_public_url(text: str) -> str:
    """A base URL fit to be published. Raises ValueError with a sentence for the operator."""
    if not re.fullmatch(
        r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/\-]*)?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?/?",
        text,
    ):
        raise ValueError(
            f"{text!r} is not a base address like https://cdb.example.org or http://cdb.example.org:8080/mice"
        )
    return text


def is_known_host(host: str, settings: Settings) -> bool:
    """Whether the value of a Host header is an address, or a name that this server is known by.

    By any other name a page of another site may have a browser come here, which believes to be there (DNS rebinding).
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return name in ("localhost", settings.host.lower(), urlsplit(settings.public_url).hostname)


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_networks(text: str) -> tuple[Network, ...]:
    """The networks of a list with commas or spaces: `127.0.0.0/8, 10.1.0.0/16`. Raises ValueError."""
    return tuple(ipaddress.ip_network(part) for part in text.replace(",", " ").split())


def parse_tls_files(cert: str | None, key: str | None, client_ca: str | None) -> Tls | None:
    """The files of TLS, or none. Raises ValueError with a sentence for the operator."""
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise ValueError(
            "TLS needs a certificate and its key: give --tls-cert (CDB_TLS_CERT) and --tls-key (CDB_TLS_KEY)"
        )
    return Tls(cert, key, client_ca)


def is_in_networks(allowed: tuple[Network, ...], host: str) -> bool:
    """Whether a socket's peer lies in one of the networks. An IPv4 peer on an IPv6 socket counts as what it is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in allowed)


# Seconds. A commit waits at most this long for readers on SQLite, a writer at most this long for another.
LOCK_WAIT_SECONDS = 5

# Seconds between two looks at a lock that another has: much less than a write takes.
LOCK_POLL_SECONDS = 0.0003
