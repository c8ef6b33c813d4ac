"""SOAP 1.1 on spyne: from the bytes of a request to the bytes of its answer. The only importer of spyne."""

from cdb_server.soap import spyne_import  # noqa: F401  # before any module that imports spyne
from cdb_server.soap.contract import Contract
from cdb_server.soap.direct import Lasting
from cdb_server.soap.endpoint import Answer, Endpoint, operations, reading_endpoint, writing_endpoint
from cdb_server.soap.faults import FAULT_NAMES
from cdb_server.soap.legacy import LEGACY, NOT_ALLOWED, Legacy, legacy_operations

__all__ = [
    "FAULT_NAMES",
    "LEGACY",
    "NOT_ALLOWED",
    "Answer",
    "Contract",
    "Endpoint",
    "Lasting",
    "Legacy",
    "legacy_operations",
    "operations",
    "reading_endpoint",
    "writing_endpoint",
]
