"""Read calibrations: the public client class, one method per reading operation of the contract."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from cdb._arguments import device_and_type, integer, run, seconds, serial, server_urls, text
from cdb._instants import Instant, format_instant, instant
from cdb._legacy import LegacyMethods, accept_legacy_order, split_address
from cdb._resolver.answers import to_record
from cdb._resolver.query import MinimumSerial, Query
from cdb._resolver.resolver import MAX_ENVELOPE_BYTES, MAX_STATUS_BYTES, Resolver, unchanged
from cdb.records import CalibrationRecord, CalibrationText, Device, JournalEntry, Run, Status

if TYPE_CHECKING:
    from cdb._resolver.soap import SoapService

# An as_of: an instant, or "now" for the latest that the server can answer.
AsOf = Instant | Literal["now"] | None

DEFAULT_SERVER = "http://localhost:8080"
DEFAULT_TIMEOUT = 30.0
# Bytes of an entry of the journal, at most: a comment has 4,096 characters, of which each may take five bytes in XML.
MAX_JOURNAL_ENTRY_BYTES = 3 * 2**13


class Calibration(LegacyMethods):
    """Reads from a calibration database. To make one talks to nobody; it may be used by many threads.

    Instants are given as aware datetimes, naive ones (UTC), dates or text such as `2016-03-01 08:00:00` (UTC). With
    `as_of`, a question is about the database as it stood then, and its answer never changes; `"now"` stands for the
    latest instant that the server can answer so.

    Every method raises a CdbError: InvalidArgument for a value that cannot be accepted, AsOfNotReached for an as_of
    that lies too late, Unavailable or ServerUnreachable when no server answered; and what is said at each.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        client_cert: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        min_serial: int = 0,
        direct: bool = False,
    ) -> None:
        """Servers by base URL, in order of preference, several in one text apart by spaces.

        Without, those of `CDB_SERVER`; without that, http://localhost:8080. `client_cert` is a PEM file with the
        certificate to show, where a server asks for one, and its key; without, that of `CDB_CLIENT_CERT`, if any.
        `timeout` bounds each call, in seconds: until then servers that cannot be reached, or that cannot answer now,
        are asked again. With `min_serial`, an answer counts only when its server holds the journal at least up to
        there; servers that are behind are passed over, and asked again. `direct` is for programs that repeat and keep
        by themselves: each server is asked once, and cache, lock file and the settings of a job do not count.
        """
        self._timeout = seconds("timeout", timeout)
        self._direct = direct
        self._min_serial = MinimumSerial(serial("min_serial", min_serial))
        self._client_cert = os.environ.get("CDB_CLIENT_CERT") or None if client_cert is None else client_cert
        # Without a server, the earlier client was given "".
        self._use_servers(os.environ.get("CDB_SERVER") or DEFAULT_SERVER if servers in (None, "") else servers)

    def set_url(self, url: str) -> None:
        """Ask another server from now on, for callers of the earlier CDB; talks to nobody, and no other thread may ask.

        `url` is its base URL or an address of the earlier CDB's services, such as
        http://localhost:8080/cdb/calibration?wsdl. `min_serial` stays. Raises InvalidArgument.
        """
        self._use_servers(split_address(text("url", url))[0])

    @property
    def min_serial(self) -> int:
        """What an answer must know of the journal, at least; to be handed to another client."""
        return self._min_serial.serial

    @accept_legacy_order("run_number")
    def get_calibration_for_run(
        self, device_name: str, calibration_type: str, run_number: int, as_of: AsOf = None
    ) -> CalibrationText:
        """The calibration that applies at the start of a run.

        Raises CalibrationNotFound, RunNotFound and Integrity.
        """
        return self._resolve_content(
            "get_calibration_for_run",
            as_of,
            **device_and_type(device_name, calibration_type),
            run_number=run(run_number),
        )

    @accept_legacy_order("date")
    def get_calibration_for_date(
        self, device_name: str, calibration_type: str, date: Instant, as_of: AsOf = None
    ) -> CalibrationText:
        """The calibration that applies at an instant. Raises CalibrationNotFound and Integrity."""
        return self._resolve_content(
            "get_calibration_for_date",
            as_of,
            **device_and_type(device_name, calibration_type),
            date=format_instant(instant("date", date)),
        )

    def get_current_calibration(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> CalibrationText:
        """The calibration that applies now, by the server's clock; with as_of, the one that applied then.

        Raises CalibrationNotFound and Integrity.
        """
        return self._resolve_content("get_current_calibration", as_of, **device_and_type(device_name, calibration_type))

    def get_calibration_for_id(self, id: int, as_of: AsOf = None) -> CalibrationText:
        """The calibration of an id, superseded and withdrawn ones too. Raises CalibrationNotFound and Integrity."""
        return self._resolve_content("get_calibration_for_id", as_of, id=integer("id", id))

    def get_ids(
        self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None
    ) -> dict[int, dict[str, Any]]:
        """The calibrations in force at one instant at least from start_time to stop_time, both included.

        Without stop_time: at start_time. By id, each a dict of the contract's fields under their names, and of
        `validFrom` and `device`, as the earlier CDB called valid_from and device_name. Raises TooLarge.
        """
        found: list[CalibrationRecord] = self._resolve("get_ids", as_of, **period(start_time, stop_time))
        return {
            record.id: {"validFrom": record.valid_from, "device": record.device_name, **asdict(record)}
            for record in found
        }

    def get_calibrations_for_run(self, run_number: int, as_of: AsOf = None) -> list[CalibrationRecord]:
        """Everything that applies to a run, one for each device and type, by id. Raises RunNotFound and TooLarge."""
        found: list[CalibrationRecord] = self._resolve("get_calibrations_for_run", as_of, run_number=run(run_number))
        return found

    def get_history(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> list[CalibrationRecord]:
        """Everything ever stored for a device and type, by id; empty when nothing. Raises TooLarge."""
        asked = device_and_type(device_name, calibration_type)
        found: list[CalibrationRecord] = self._resolve("get_history", as_of, **asked)
        return found

    def list_devices(self, as_of: AsOf = None, *, with_cabling: bool = False) -> list[Device]:
        """The devices, in alphabetical order, with their calibration types. Raises TooLarge.

        As with the earlier CDB, those that have nothing but cabling are listed by `Cabling.list_devices`, and here only
        `with_cabling`.
        """
        found: list[Device] = self._resolve("list_devices", as_of)
        return [device for device in found if with_cabling or device.calibration_type != ("cabling",)]

    def get_run(self, run_number: int, as_of: AsOf = None) -> Run:
        """A run's times. Raises RunNotFound."""
        found: Run = self._resolve("get_run", as_of, run_number=run(run_number))
        return found

    def get_runs(self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None) -> list[Run]:
        """The runs that start from start_time to stop_time, both included, by number. Raises TooLarge."""
        found: list[Run] = self._resolve("get_runs", as_of, **period(start_time, stop_time))
        return found

    def get_journal(self, after_serial: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """What the master accepted after a serial, in its order, `limit` entries at most.

        Fewer than limit: there are no more yet. Raises TooLarge for a limit greater than the server's.
        """
        asked = integer("limit", limit)
        answer = self._resolver.begin().from_servers(
            unchanged,
            "get_journal",
            max_bytes=max(asked, 0) * MAX_JOURNAL_ENTRY_BYTES + MAX_ENVELOPE_BYTES,
            after_serial=integer("after_serial", after_serial),
            limit=asked,
        )
        return [to_record(JournalEntry, found) for found in answer or ()]

    def get_payload(self, sha256: str, size: int | None = None) -> bytes:
        """The bytes of a payload, by the sha256 that every calibration names.

        With the `size` that the calibration names, an answer that is longer is not read to its end. Raises
        PayloadNotFound, and Integrity when other bytes came.
        """
        return self._resolver.begin().payload(text("sha256", sha256).lower(), size)

    def get_status(self) -> Status:
        """What the server says of itself; as text, `OK`."""
        answer = self._resolver.begin().from_servers(unchanged, "get_status", max_bytes=MAX_STATUS_BYTES)
        return to_record(Status, answer)

    def get_server_host_name(self) -> str:
        """The host of the first server that is named; empty where there is none."""
        return next((urlsplit(server).hostname or "" for server in self._servers), "")

    def _resolve_content(self, operation: str, as_of: AsOf, **arguments: str | int) -> CalibrationText:
        return self._resolver.begin().resolve_content(Query.of(operation, _as_of(as_of), **arguments))

    def _resolve(self, operation: str, as_of: AsOf, **arguments: str | int | None) -> Any:
        return self._resolver.begin().resolve(Query.of(operation, _as_of(as_of), **arguments))

    def _use_servers(self, servers: str | Sequence[str]) -> None:
        """Ask these servers from now on."""
        self._servers = server_urls(servers)
        self._services: dict[str, SoapService] = {}
        self._resolver = Resolver(self._servers, self._timeout, self._read_service, direct=self._direct)

    def _read_service(self) -> SoapService:
        return self._service("calibration.wsdl", "/cdb/v2/calibration", None)

    def _service(self, wsdl: str, path: str, auth: tuple[str, str] | None) -> SoapService:
        if wsdl not in self._services:
            # Late, so that to import cdb, to make a client and to ask what is in the cache costs next to nothing.
            from cdb._resolver.soap import SoapService

            self._services[wsdl] = SoapService(
                wsdl,
                path,
                self._servers,
                auth,
                self._client_cert,
                self._timeout,
                self._min_serial,
                retry=not self._direct,
            )
        return self._services[wsdl]


def _as_of(as_of: AsOf) -> str | None:
    return None if as_of is None else "now" if as_of == "now" else format_instant(instant("as_of", as_of))


def period(start_time: Instant, stop_time: Instant | None) -> dict[str, str | None]:
    """The arguments of a period."""
    return {
        "start_time": format_instant(instant("start_time", start_time)),
        "stop_time": None if stop_time is None else format_instant(instant("stop_time", stop_time)),
    }
