"""Read and write cabling, as the legacy client's classes did: the calibration type `cabling`.

New code asks `Calibration` for that type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdb._exceptions import CalibrationNotFound
from cdb._instants import Instant
from cdb._legacy import LegacyMethods
from cdb.calibration import DEFAULT_TIMEOUT, Calibration
from cdb.records import CalibrationRecord, CalibrationText, Device, Status
from cdb.supermouse import CalibrationSuperMouse

TYPE = "cabling"


class Cabling(LegacyMethods):
    """Reads cabling. Every method raises what the one of Calibration raises."""

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        client_cert: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Take the arguments of Calibration."""
        self._calibration = Calibration(servers, client_cert=client_cert, timeout=timeout)

    def set_url(self, url: str) -> None:
        """Ask another server, as Calibration.set_url does."""
        self._calibration.set_url(url)

    def get_current_cabling(self, device: str) -> CalibrationText:
        """Get the cabling that applies now."""
        return self._calibration.get_current_calibration(device, TYPE)

    def get_cabling_for_date(self, device: str, timestamp: Instant) -> CalibrationText:
        """Get the cabling that applies at an instant."""
        return self._calibration.get_calibration_for_date(device, TYPE, timestamp)

    def get_cabling_for_run(self, device: str, run_number: int) -> CalibrationText:
        """Get the cabling that applies at the start of a run."""
        return self._calibration.get_calibration_for_run(device, TYPE, run_number)

    def get_cabling_for_id(self, id: int) -> CalibrationText:
        """Get the cabling of an id. Raises CalibrationNotFound where the id is not that of a cabling."""
        found = self._calibration.get_calibration_for_id(id)
        if found.calibration_type != TYPE:
            raise CalibrationNotFound(
                f"{found.id} is no cabling, but {found.device_name} {found.calibration_type}: get_ids lists the ids of "
                "cablings, and Calibration().get_calibration_for_id gets any",
                id=found.id,
            )
        return found

    def get_ids(self, start_time: Instant, stop_time: Instant | None = None) -> dict[int, dict[str, Any]]:
        """List the cabling in force in a period, as Calibration.get_ids does."""
        found = self._calibration.get_ids(start_time, stop_time)
        return {id: fields for id, fields in found.items() if fields["calibration_type"] == TYPE}

    def list_devices(self) -> list[Device]:
        """List the devices that have cabling."""
        return [
            device for device in self._calibration.list_devices(with_cabling=True) if TYPE in device.calibration_type
        ]

    def get_status(self) -> Status:
        """Get the server's status; as text, `OK`."""
        return self._calibration.get_status()

    def get_server_host_name(self) -> str:
        """Return the host of the first server."""
        return self._calibration.get_server_host_name()


class CablingSuperMouse(Cabling):
    """Writes cabling, and reads it."""

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        client_cert: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Take the arguments of CalibrationSuperMouse."""
        self._writer = CalibrationSuperMouse(servers, user=user, token=token, client_cert=client_cert, timeout=timeout)
        self._calibration = self._writer

    def set_detector(self, device: str, valid_from: Instant, data: bytes | str) -> CalibrationRecord:
        """Store cabling that applies from `valid_from`, as CalibrationSuperMouse.add_calibration does."""
        return self._writer.add_calibration(device, TYPE, valid_from, data)
