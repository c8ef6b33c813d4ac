"""What is asked, as wrk sends it: whole SOAP requests of the contract, and plain GET."""

import base64
from datetime import datetime

from cdb_server.instants import format_instant
from tests.benchmarks.dataset import Stock
from tests.benchmarks.load import Question
from tests.fuzz import wire

# Who uploads.
USER = "uploader"
NAMESPACE = "urn:mice:cdb:2"
# As zeep writes a request.
ENVELOPE = (
    "<?xml version='1.0' encoding='utf-8'?>\n"
    '<soap-env:Envelope xmlns:soap-env="http://schemas.xmlsoap.org/soap/envelope/"><soap-env:Body>'
    '<ns0:{operation} xmlns:ns0="urn:mice:cdb:2">{arguments}</ns0:{operation}>'
    "</soap-env:Body></soap-env:Envelope>"
)
CONTENT_TYPE = "text/xml; charset=utf-8"


def soap(operation: str, path: str = wire.READING, authorization: str | None = None, **arguments: str) -> Question:
    """A call, with arguments in the order of the contract."""
    told = "".join(f"<ns0:{name}>{value}</ns0:{name}>" for name, value in arguments.items())
    headers = {"Content-Type": CONTENT_TYPE, "SOAPAction": f'"{NAMESPACE}#{operation}"'}
    if authorization is not None:
        headers["Authorization"] = authorization
    return Question(path, ENVELOPE.replace("{operation}", operation).replace("{arguments}", told), headers=headers)


def for_date(device_name: str, calibration_type: str, date: datetime) -> Question:
    """One look-up by date."""
    return soap(
        "get_calibration_for_date",
        device_name=device_name,
        calibration_type=calibration_type,
        date=format_instant(date),
    )


RANDOM_DATES = soap("get_calibration_for_date", device_name="{device}", calibration_type="{type}", date="{date}")
LISTS_OF_100 = soap("get_ids", start_time="{start}", stop_time="{stop}")
FOR_RUNS_ONE = soap("get_calibration_for_run", device_name="{device}", calibration_type="{type}", run_number="{run}")
FOR_RUNS_ALL = soap("get_calibrations_for_run", run_number="{run}")


# Few enough questions, some thousands, to be asked again.
REPEATED = soap("get_calibration_for_date", device_name="{device}", calibration_type="{type}", date="{day}")


def upload(stock: Stock, token: str) -> Question:
    """Uploads under dates by chance, no two of the same bytes: the first twelve are each one's own."""
    encoded = base64.b64encode(stock.payload(0)).decode("ascii")
    return soap(
        "add_calibration",
        wire.WRITING,
        wire.basic(USER, token),
        device_name="{device}",
        calibration_type="{type}",
        valid_from="{date}",
        data="{unique}" + encoded[16:],
    )


def plain(device_name: str, calibration_type: str, date: datetime, as_of: datetime) -> Question:
    """A calibration by plain GET."""
    path = f"{wire.READING}/{device_name}/{calibration_type}?date={format_instant(date)}&as_of={format_instant(as_of)}"
    return Question(path, method="GET")


def plain_for_runs(as_of: datetime) -> Question:
    """Calibrations of runs by chance, by plain GET."""
    return Question(f"{wire.READING}/{{device}}/{{type}}?run={{run}}&as_of={format_instant(as_of)}", method="GET")


# Any of the answers, as files of nginx.
STATIC_ANSWERS = Question("/{answer}", method="GET")


def static(name: str) -> Question:
    """A file of nginx."""
    return Question(f"/{name}", method="GET")
