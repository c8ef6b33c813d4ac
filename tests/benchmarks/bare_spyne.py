"""The reference for what spyne alone takes: its application with the same operations, the answers in memory.

It resolves nothing, reads nothing and checks nothing against a schema; gunicorn serves it. The payload has as many
bytes as CDB_BENCHMARK_SIZE says.
"""

import importlib
import os
import sys
from datetime import datetime, timedelta, timezone

# Before spyne, which is not found on every Python otherwise, and which it spares collecting garbage in a request.
import cdb_server.soap  # noqa: F401  # for what it does

# isort: split
from spyne import Application, ComplexModel, DateTime, Integer64, ServiceBase, Unicode, rpc
from spyne.model.binary import ByteArray
from spyne.protocol.soap import Soap11

from tests.benchmarks.dataset import Stock

NAMESPACE = "urn:mice:cdb:2"
ROWS = 100


class Calibration(ComplexModel):
    """The fields of the contract's."""

    __namespace__ = NAMESPACE
    _type_info = [  # noqa: RUF012 - spyne declares members so
        ("id", Integer64),
        ("device_name", Unicode),
        ("calibration_type", Unicode),
        ("valid_from", DateTime),
        ("valid_until", DateTime),
        ("created", DateTime),
        ("author", Unicode),
        ("withdrawn", Unicode),
        ("size", Integer64),
        ("sha256", Unicode),
        ("data", ByteArray),
    ]


def calibration(id: int, data: bytes | None) -> Calibration:
    """One answer, or one row of a list."""
    now = datetime(2016, 3, 1, 8, tzinfo=timezone.utc)
    return Calibration(
        id=id,
        device_name="DEVICE1",
        calibration_type="t0",
        valid_from=now,
        valid_until=now + timedelta(hours=1),
        created=now,
        author="alice",
        withdrawn="false",
        size=1000,
        sha256=64 * "0",
        data=None if data is None else [data],
    )


# What spyne's WSGI server asks for besides, by names that Python does not find either.
for name in ("http.cookies", "urllib", "urllib.parse"):
    sys.modules[f"spyne.util.six.moves.{name.replace('http.', 'http_')}"] = importlib.import_module(name)
WsgiApplication = importlib.import_module("spyne.server.wsgi").WsgiApplication

SIZE = int(os.environ["CDB_BENCHMARK_SIZE"])
ONE = calibration(1, Stock(1000, SIZE).payload(0))
MANY = [calibration(id, None) for id in range(ROWS)]


class Calibrations(ServiceBase):
    """Two operations of the contract, as spyne has services written."""

    @rpc(Unicode, Unicode, DateTime, _returns=Calibration)
    def get_calibration_for_date(ctx: object, device_name: str, calibration_type: str, date: datetime) -> Calibration:  # noqa: N805 - spyne passes its context first
        return ONE

    @rpc(DateTime, DateTime, _returns=Calibration.customize(max_occurs="unbounded"))
    def get_ids(ctx: object, start_time: datetime, stop_time: datetime) -> list[Calibration]:  # noqa: N805 - spyne passes its context first
        return MANY


application = WsgiApplication(
    Application([Calibrations], NAMESPACE, in_protocol=Soap11(), out_protocol=Soap11()),
    max_content_length=2**20,
)
