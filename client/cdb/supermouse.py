"""Write calibrations, withdrawals and runs: the public client class that sends user and token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cdb._arguments import integer, run, text, upload, without_none
from cdb._exceptions import Integrity, InvalidArgument, NotAuthorised
from cdb._instants import Instant
from cdb._resolver.answers import to_record
from cdb._resolver.job import check_online
from cdb._resolver.resolver import unchanged
from cdb._transport.credentials import Token
from cdb.calibration import DEFAULT_TIMEOUT, Calibration, period
from cdb.records import CalibrationRecord, Preview, Run


class CalibrationSuperMouse(Calibration):
    """Writes to a calibration database, and reads from it. Every write may be repeated safely.

    Its methods also raise NotAuthorised.
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
        """Take the arguments of Calibration, and user and token; by default those of `CDB_USER` and `CDB_TOKEN`.

        Each acknowledged write raises `min_serial`, so that later reads include it, whichever server answers.
        """
        super().__init__(servers, client_cert=client_cert, timeout=timeout, min_serial=min_serial, direct=direct)
        self._user = os.environ.get("CDB_USER", "") if user is None else user
        self._token = Token(os.environ.get("CDB_TOKEN", "") if token is None else token)
        if not (self._user.isascii() and self._token.isascii()):
            raise InvalidArgument("user and token are ASCII; these are not", argument="token")

    def add_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: Instant,
        data: bytes | str,
        comment: str | None = None,
    ) -> CalibrationRecord:
        """Store a calibration that applies from `valid_from`; it is on disk when this returns.

        `data` is bytes, or text that is stored as UTF-8. Where the same bytes are already stored, not withdrawn, for
        this device, type and valid_from, returns that calibration. Raises Integrity and TooLarge.
        """
        given = upload(device_name, calibration_type, valid_from, data, comment)
        stored = to_record(CalibrationRecord, self._write("add_calibration", **given))
        sha256 = given["sha256"]
        if stored.sha256 != sha256:
            raise Integrity(f"the server stored {stored.sha256}, and {sha256} was sent", sha256=sha256)
        return stored

    def set_detector(
        self, device: str, calibration_type: str, valid_from: Instant, data: bytes | str
    ) -> CalibrationRecord:
        """Store a calibration, under the earlier CDB's name of add_calibration."""
        return self.add_calibration(device, calibration_type, valid_from, data)

    def preview_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: Instant,
        data: bytes | str,
        comment: str | None = None,
    ) -> Preview:
        """Tell what add_calibration with these arguments would change now. Writes nothing.

        Raises what add_calibration raises.
        """
        given = upload(device_name, calibration_type, valid_from, data, comment)
        return to_record(Preview, self._write("preview_calibration", **given))

    def withdraw_calibration(self, id: int, reason: str) -> CalibrationRecord:
        """Withdraw a calibration stored by mistake: the one before it applies again. Raises CalibrationNotFound."""
        return to_record(
            CalibrationRecord, self._write("withdraw_calibration", id=integer("id", id), reason=text("reason", reason))
        )

    def add_run(self, run_number: int, start_time: Instant, stop_time: Instant | None = None) -> Run:
        """Register the times of a run, or correct them."""
        return to_record(
            Run,
            self._write("add_run", run_number=run(run_number), **period(start_time, stop_time)),
        )

    def _write(self, operation: str, **arguments: Any) -> Any:
        if not self._user or not self._token:
            raise NotAuthorised("writing needs user and token: give them, or set CDB_USER and CDB_TOKEN")
        if not self._direct:
            check_online(operation)
        service = self._service(
            "calibration_supermouse.wsdl", "/cdb/v2/calibrationSuperMouse", (self._user, self._token)
        )
        return service.call(operation, unchanged, **without_none(arguments))
