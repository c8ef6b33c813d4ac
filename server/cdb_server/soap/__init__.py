"""SOAP 1.1 on spyne: from the bytes of a request to the bytes of its answer. The only importer of spyne."""

from cdb_server.soap import spyne_import  # noqa: F401  # before any module that imports spyne
from cdb_server.soap.direct import Lasting
from cdb_server.soap.endpoint import Answer, Endpoint, reading_endpoint, writing_endpoint

__all__ = ["Answer", "Endpoint", "Lasting", "reading_endpoint", "writing_endpoint"]
