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
# Most bytes of a journal entry: a comment has 4,096 characters, and each may take five bytes in XML.
MAX_JOURNAL_ENTRY_BYTES = 3 * 2**13


class Calibration(LegacyMethods):
    """Reads from a calibration database. Thread-safe. Making one sends nothing.

    Instants are aware datetimes, naive ones (UTC), dates or text such as `2016-03-01 08:00:00` (UTC). With `as_of`, a
    query is answered from the database as it stood then, and its answer never changes; `"now"` is the latest as_of that
    the server can answer.

    Every method raises CdbError: InvalidArgument for a value that cannot be accepted, AsOfNotReached for an as_of that
    is too late, Unavailable or ServerUnreachable when no server answered; and the errors that its docstring names.
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
        """Take the servers' base URLs in order of preference: a list, or one text with spaces between.

        The default is `CDB_SERVER`, else http://localhost:8080. `client_cert` is a PEM file with the certificate and
        key to send where a server asks for one; the default is `CDB_CLIENT_CERT`. `timeout` limits each call, in
        seconds: until then it retries servers that cannot be reached, or that cannot answer now. `min_serial` rejects
        answers of servers whose journal is shorter; they are asked again. `direct` asks each server once, and ignores
        cache, lock file and the settings of a job: for programs that have their own retries and cache.
        """
        self._timeout = seconds("timeout", timeout)
        self._direct = direct
        self._min_serial = MinimumSerial(serial("min_serial", min_serial))
        self._client_cert = os.environ.get("CDB_CLIENT_CERT") or None if client_cert is None else client_cert
        # Code for the earlier client passes "" for the default server.
        self._use_servers(os.environ.get("CDB_SERVER") or DEFAULT_SERVER if servers in (None, "") else servers)

    def set_url(self, url: str) -> None:
        """Ask another server from now on, as the earlier CDB's client did. Sends nothing. Not thread-safe.

        `url` is its base URL or an address of the earlier CDB's services, such as
        http://localhost:8080/cdb/calibration?wsdl. Keeps `min_serial`. Raises InvalidArgument.
        """
        self._use_servers(split_address(text("url", url))[0])

    @property
    def min_serial(self) -> int:
        """The journal position below which an answer is rejected; can be passed to another client."""
        return self._min_serial.serial

    @accept_legacy_order("run_number")
    def get_calibration_for_run(
        self, device_name: str, calibration_type: str, run_number: int, as_of: AsOf = None
    ) -> CalibrationText:
        """Get the calibration that applies at the start of a run.

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
        """Get the calibration that applies at an instant. Raises CalibrationNotFound and Integrity."""
        return self._resolve_content(
            "get_calibration_for_date",
            as_of,
            **device_and_type(device_name, calibration_type),
            date=format_instant(instant("date", date)),
        )

    def get_current_calibration(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> CalibrationText:
        """Get the calibration that applies now, by the server's clock; with as_of, the one that applied then.

        Raises CalibrationNotFound and Integrity.
        """
        return self._resolve_content("get_current_calibration", as_of, **device_and_type(device_name, calibration_type))

    def get_calibration_for_id(self, id: int, as_of: AsOf = None) -> CalibrationText:
        """Get the calibration of an id, superseded and withdrawn ones too. Raises CalibrationNotFound and Integrity."""
        return self._resolve_content("get_calibration_for_id", as_of, id=integer("id", id))

    def get_ids(
        self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None
    ) -> dict[int, dict[str, Any]]:
        """List the calibrations in force at any instant from start_time to stop_time, both included.

        Without stop_time: at start_time. Returns, by id, dicts of the contract's fields, with valid_from and
        device_name also as `validFrom` and `device`, their names in the earlier CDB. Raises TooLarge.
        """
        found: list[CalibrationRecord] = self._resolve("get_ids", as_of, **period(start_time, stop_time))
        return {
            record.id: {"validFrom": record.valid_from, "device": record.device_name, **asdict(record)}
            for record in found
        }

    def get_calibrations_for_run(self, run_number: int, as_of: AsOf = None) -> list[CalibrationRecord]:
        """List what applies to a run, one for each device and type, by id. Raises RunNotFound and TooLarge."""
        found: list[CalibrationRecord] = self._resolve("get_calibrations_for_run", as_of, run_number=run(run_number))
        return found

    def get_history(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> list[CalibrationRecord]:
        """List all calibrations ever stored for a device and type, by id. Raises TooLarge."""
        asked = device_and_type(device_name, calibration_type)
        found: list[CalibrationRecord] = self._resolve("get_history", as_of, **asked)
        return found

    def list_devices(self, as_of: AsOf = None, *, with_cabling: bool = False) -> list[Device]:
        """List the devices, in alphabetical order, with their calibration types. Raises TooLarge.

        As in the earlier CDB, devices that have only cabling are left out, unless `with_cabling`;
        `Cabling.list_devices` lists them.
        """
        found: list[Device] = self._resolve("list_devices", as_of)
        return [device for device in found if with_cabling or device.calibration_type != ("cabling",)]

    def get_run(self, run_number: int, as_of: AsOf = None) -> Run:
        """Get a run's times. Raises RunNotFound."""
        found: Run = self._resolve("get_run", as_of, run_number=run(run_number))
        return found

    def get_runs(self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None) -> list[Run]:
        """List the runs that start from start_time to stop_time, both included, by number. Raises TooLarge."""
        found: list[Run] = self._resolve("get_runs", as_of, **period(start_time, stop_time))
        return found

    def get_journal(self, after_serial: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """List the journal's entries after a serial, in order, at most `limit`.

        Fewer entries mean that there are no more yet. Raises TooLarge for a limit greater than the server's.
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
        """Get the bytes of a payload by its sha256, a field of every calibration.

        With the calibration's `size`, a longer answer is rejected before it is read to its end. Raises PayloadNotFound,
        and Integrity for other bytes.
        """
        return self._resolver.begin().payload(text("sha256", sha256).lower(), size)

    def get_status(self) -> Status:
        """Get the server's status; as text, `OK`."""
        answer = self._resolver.begin().from_servers(unchanged, "get_status", max_bytes=MAX_STATUS_BYTES)
        return to_record(Status, answer)

    def get_server_host_name(self) -> str:
        """Return the host of the first server; empty where there is none."""
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
            # Imported late: zeep is slow to import, and answers from the cache do not need it.
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
    """Check the arguments of a period."""
    return {
        "start_time": format_instant(instant("start_time", start_time)),
        "stop_time": None if stop_time is None else format_instant(instant("stop_time", stop_time)),
    }
