"""The client's errors: one hierarchy, complete against the contract."""

import copy
import pickle
from importlib.resources import files

import pytest
from lxml import etree

import cdb
from cdb import _exceptions
from cdb_server.soap.types import FAULT_TYPES

XS = "{http://www.w3.org/2001/XMLSchema}"
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"


def declared_faults() -> set[str]:
    """The faults that the WSDL files declare."""
    return {
        fault.attrib["name"]
        for name in ("calibration.wsdl", "calibration_supermouse.wsdl")
        for fault in etree.fromstring(files("cdb.wsdl").joinpath(name).read_bytes()).iter(f"{WSDL}fault")
    } - {None}


def test_every_fault_of_the_contract_is_an_error_of_its_name_here_and_at_the_server() -> None:
    """Server error, fault and client error: one name each, and none is missing."""
    assert declared_faults() == {fault.__type_name__ for fault in FAULT_TYPES.values()}
    # PayloadNotFound is an answer of get_payload, which mirrors ask.
    assert set(_exceptions.FAULTS) == declared_faults() | {"PayloadNotFound"}
    for name, error in _exceptions.FAULTS.items():
        assert error.__name__ == name
        assert getattr(cdb, name) is error


def test_every_error_says_whether_asking_again_may_help() -> None:
    """Each is permanent or temporary, never both."""
    errors = [*_exceptions.FAULTS.values(), cdb.NotAuthorised, cdb.ServerUnreachable]
    assert all(issubclass(e, cdb.CdbPermanentError) != issubclass(e, cdb.CdbTemporaryError) for e in errors)
    temporary = {e.__name__ for e in errors if issubclass(e, cdb.CdbTemporaryError)}
    assert temporary == {"AsOfNotReached", "Unavailable", "ServerUnreachable"}


@pytest.mark.parametrize("error", [cdb.CalibrationNotFound, cdb.RunNotFound, cdb.PayloadNotFound])
def test_what_is_not_found_is_a_lookup_error(error: type[Exception]) -> None:
    """Code that knows only Python's own errors can catch them."""
    assert issubclass(error, LookupError)


def test_an_error_crosses_processes_with_its_fields() -> None:
    """multiprocessing pickles errors."""
    error = cdb.CalibrationNotFound("nothing applies", device_name="TOF1", run_number=7)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), again.device_name, again.run_number, again.id) == (
            cdb.CalibrationNotFound,
            "nothing applies",
            "TOF1",
            7,
            None,
        )


def test_everything_exported_is_there() -> None:
    """`__all__` and the module agree, and help(cdb) names every error."""
    for name in cdb.__all__:
        assert getattr(cdb, name).__doc__
    assert all(name in cdb.__doc__ for name in [*_exceptions.FAULTS, "NotAuthorised", "ServerUnreachable"])
