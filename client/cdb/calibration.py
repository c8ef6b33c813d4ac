"""The clients: `Calibration` reads, `CalibrationSuperMouse` writes and reads. Names are the contract's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from cdb._answers import record_of
from cdb._arguments import addresses, number, present, seconds, serial, text, upload
from cdb._asking import Asking, as_it_is
from cdb._exceptions import Integrity, InvalidArgument, NotAuthorised
from cdb._instants import Instant, instant, spell
from cdb._job import check_online
from cdb._questions import Question
from cdb._serials import Floor
from cdb.records import CalibrationRecord, CalibrationText, Device, JournalEntry, Preview, Run, Status

if TYPE_CHECKING:
    from cdb._soap import Service

# An as_of: an instant, or "now" for the latest that the server can answer.
AsOf = Instant | Literal["now"] | None

DEFAULT_SERVER = "http://localhost:8080"
DEFAULT_TIMEOUT = 30.0


class Calibration:
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
        named = os.environ.get("CDB_SERVER") or DEFAULT_SERVER if servers is None else servers
        self._servers = addresses(named)
        self._timeout = seconds("timeout", timeout)
        self._direct = direct
        self._known = Floor(serial("min_serial", min_serial))
        self._client_cert = os.environ.get("CDB_CLIENT_CERT") or None if client_cert is None else client_cert
        self._reading: Service | None = None
        self._asking = Asking(self._servers, self._timeout, self._read_service, direct=direct)

    @property
    def min_serial(self) -> int:
        """What an answer must know of the journal, at least; to be handed to another client."""
        return self._known.serial

    def get_calibration_for_run(
        self, device_name: str, calibration_type: str, run_number: int, as_of: AsOf = None
    ) -> CalibrationText:
        """The calibration that applies at the start of a run.

        Raises CalibrationNotFound, RunNotFound and Integrity.
        """
        return self._text(
            "get_calibration_for_run",
            as_of,
            device_name=text("device_name", device_name),
            calibration_type=text("calibration_type", calibration_type),
            run_number=number("run_number", run_number),
        )

    def get_calibration_for_date(
        self, device_name: str, calibration_type: str, date: Instant, as_of: AsOf = None
    ) -> CalibrationText:
        """The calibration that applies at an instant. Raises CalibrationNotFound and Integrity."""
        return self._text(
            "get_calibration_for_date",
            as_of,
            device_name=text("device_name", device_name),
            calibration_type=text("calibration_type", calibration_type),
            date=spell(instant("date", date)),
        )

    def get_current_calibration(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> CalibrationText:
        """The calibration that applies now, by the server's clock; with as_of, the one that applied then.

        Raises CalibrationNotFound and Integrity.
        """
        return self._text(
            "get_current_calibration",
            as_of,
            device_name=text("device_name", device_name),
            calibration_type=text("calibration_type", calibration_type),
        )

    def get_calibration_for_id(self, id: int, as_of: AsOf = None) -> CalibrationText:
        """The calibration of an id, superseded and withdrawn ones too. Raises CalibrationNotFound and Integrity."""
        return self._text("get_calibration_for_id", as_of, id=number("id", id))

    def get_ids(
        self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None
    ) -> dict[int, dict[str, Any]]:
        """The calibrations in force at one instant at least from start_time to stop_time, both included.

        Without stop_time: at start_time. By id, each a dict of `validFrom`, `created` and the contract's other fields
        under their names. Raises TooLarge.
        """
        ids: dict[int, dict[str, Any]] = {}
        for found in self._answer("get_ids", as_of, **_period(start_time, stop_time)):
            record = asdict(found)
            id, valid_from = record.pop("id"), record.pop("valid_from")
            ids[id] = {"validFrom": valid_from, **record}
        return ids

    def get_calibrations_for_run(self, run_number: int, as_of: AsOf = None) -> list[CalibrationRecord]:
        """Everything that applies to a run, one for each device and type, by id. Raises RunNotFound and TooLarge."""
        found: list[CalibrationRecord] = self._answer(
            "get_calibrations_for_run", as_of, run_number=number("run_number", run_number)
        )
        return found

    def get_history(self, device_name: str, calibration_type: str, as_of: AsOf = None) -> list[CalibrationRecord]:
        """Everything ever stored for a device and type, by id; empty when nothing. Raises TooLarge."""
        found: list[CalibrationRecord] = self._answer(
            "get_history",
            as_of,
            device_name=text("device_name", device_name),
            calibration_type=text("calibration_type", calibration_type),
        )
        return found

    def list_devices(self, as_of: AsOf = None) -> list[Device]:
        """The devices, in alphabetical order, with their calibration types. Raises TooLarge."""
        found: list[Device] = self._answer("list_devices", as_of)
        return found

    def get_run(self, run_number: int, as_of: AsOf = None) -> Run:
        """A run's times. Raises RunNotFound."""
        found: Run = self._answer("get_run", as_of, run_number=number("run_number", run_number))
        return found

    def get_runs(self, start_time: Instant, stop_time: Instant | None = None, as_of: AsOf = None) -> list[Run]:
        """The runs that start from start_time to stop_time, both included, by number. Raises TooLarge."""
        found: list[Run] = self._answer("get_runs", as_of, **_period(start_time, stop_time))
        return found

    def get_journal(self, after_serial: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """What the master accepted after a serial, in its order, `limit` entries at most.

        Fewer than limit: there are no more yet. Raises TooLarge for a limit greater than the server's.
        """
        answer = self._asking.served(
            "get_journal", after_serial=number("after_serial", after_serial), limit=number("limit", limit)
        )
        return [record_of(JournalEntry, found) for found in answer or ()]

    def get_payload(self, sha256: str) -> bytes:
        """The bytes of a payload, by the sha256 that every calibration names.

        Raises PayloadNotFound, and Integrity when other bytes came.
        """
        return self._asking.payload(text("sha256", sha256).lower())

    def get_status(self) -> Status:
        """What the server says of itself."""
        return record_of(Status, self._asking.served("get_status"))

    def _text(self, operation: str, as_of: AsOf, **arguments: str | int) -> CalibrationText:
        return self._asking.text(Question.of(operation, _as_of(as_of), **arguments))

    def _answer(self, operation: str, as_of: AsOf, **arguments: str | int | None) -> Any:
        return self._asking.records(Question.of(operation, _as_of(as_of), **arguments))

    def _read_service(self) -> Service:
        if self._reading is None:
            self._reading = self._service("calibration.wsdl", "/cdb/v2/calibration", None)
        return self._reading

    def _service(self, wsdl: str, path: str, auth: tuple[str, str] | None) -> Service:
        # Late, so that to import cdb, to make a client and to ask what is in the cache costs next to nothing.
        from cdb._soap import Service

        return Service(
            wsdl, path, self._servers, auth, self._client_cert, self._timeout, self._known, retry=not self._direct
        )


class CalibrationSuperMouse(Calibration):
    """Writes to a calibration database, and reads too. Every write may be repeated safely.

    Its methods raise NotAuthorised, beside what is said at Calibration.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        client_cert: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        min_serial: int = 0,
        direct: bool = False,
    ) -> None:
        """As Calibration, for a user with a token; without, those of `CDB_USER` and `CDB_TOKEN`.

        Each acknowledged write raises `min_serial`, so that what is read afterwards knows of it, from whatever server.
        """
        super().__init__(servers, client_cert=client_cert, timeout=timeout, min_serial=min_serial, direct=direct)
        self._user = os.environ.get("CDB_USER", "") if user is None else user
        self._token = os.environ.get("CDB_TOKEN", "") if token is None else token
        if not (self._user.isascii() and self._token.isascii()):
            raise InvalidArgument("user and token are ASCII; these are not", argument="token")
        self._writing: Service | None = None

    def add_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: Instant,
        data: bytes | str,
        comment: str | None = None,
    ) -> CalibrationRecord:
        """Store a calibration that applies from `valid_from`; it is on disk when this returns.

        `data` is bytes, or text that is stored as UTF-8. What is already stored, not withdrawn, under exactly this
        device, type and valid_from is found, not stored twice. Raises Integrity and TooLarge.
        """
        given = upload(device_name, calibration_type, valid_from, data, comment)
        stored = record_of(CalibrationRecord, self._tell("add_calibration", **given))
        sha256 = given["sha256"]
        if stored.sha256 != sha256:
            raise Integrity(f"the server stored {stored.sha256}, and {sha256} was sent", sha256=sha256)
        return stored

    def preview_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: Instant,
        data: bytes | str,
        comment: str | None = None,
    ) -> Preview:
        """What add_calibration with the same arguments would change, as things stand now. Writes nothing.

        Raises all that add_calibration raises.
        """
        given = upload(device_name, calibration_type, valid_from, data, comment)
        return record_of(Preview, self._tell("preview_calibration", **given))

    def withdraw_calibration(self, id: int, reason: str) -> CalibrationRecord:
        """Withdraw a calibration stored by mistake: the one before it applies again. Raises CalibrationNotFound."""
        return record_of(
            CalibrationRecord, self._tell("withdraw_calibration", id=number("id", id), reason=text("reason", reason))
        )

    def add_run(self, run_number: int, start_time: Instant, stop_time: Instant | None = None) -> Run:
        """Register the times of a run, or correct them."""
        return record_of(
            Run,
            self._tell("add_run", run_number=number("run_number", run_number), **_period(start_time, stop_time)),
        )

    def _tell(self, operation: str, **arguments: Any) -> Any:
        if not self._user or not self._token:
            raise NotAuthorised("writing needs user and token: give them, or set CDB_USER and CDB_TOKEN")
        if not self._direct:
            check_online(operation)
        if self._writing is None:
            self._writing = self._service(
                "calibration_supermouse.wsdl", "/cdb/v2/calibrationSuperMouse", (self._user, self._token)
            )
        return self._writing.call(operation, as_it_is, **present(arguments))


def _as_of(as_of: AsOf) -> str | None:
    return None if as_of is None else "now" if as_of == "now" else spell(instant("as_of", as_of))


def _period(start_time: Instant, stop_time: Instant | None) -> dict[str, str | None]:
    return {
        "start_time": spell(instant("start_time", start_time)),
        "stop_time": None if stop_time is None else spell(instant("stop_time", stop_time)),
    }
