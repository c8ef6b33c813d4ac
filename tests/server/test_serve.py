"""The server as its users meet it: processes, a socket, HTTP."""

import requests

from tests.servers import Master


def test_the_published_contract_names_the_address_that_the_server_has(master: Master) -> None:
    """The WSDL is served byte for byte, apart from the address."""
    document = requests.get(f"{master.url}/cdb/v2/calibration?WSDL", timeout=10)
    assert document.status_code == 200
    assert f'location="{master.url}/cdb/v2/calibration"' in document.text
