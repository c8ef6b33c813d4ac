"""What a call costs its caller: no more than a call of zeep's own, for all that is checked and kept beside."""

import base64
import hashlib
import statistics
import time
from collections.abc import Callable
from importlib.resources import files

import zeep

import cdb
from tests.client.damaging_proxy import faulty
from tests.client.test_invalid_responses import answer, http

ROUNDS = 300
DATA = b"TOFChannelKey 1 1 0 0 tof1 -60624.8 3\n" * 27
SHA256 = hashlib.sha256(DATA).hexdigest()


def digested(content: bytes) -> bytes:
    """A response as the server gives it."""
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    headers = (f"Content-Digest: sha-256=:{digest}:;serial=7", "CDB-Serial: 7", "Vary: CDB-Have")
    return http(content, "200 OK", "text/xml; charset=utf-8", *headers)


WHOLE = answer(base64.b64encode(DATA).decode(), SHA256, len(DATA))
FULL = digested(WHOLE)
BRIEF = digested(WHOLE[: WHOLE.index(b"<data>")] + WHOLE[WHOLE.index(b"</data>") + len(b"</data>") :])


def answered(request: bytes) -> bytes:
    """The answer to get_calibration_for_id; to who has the payload, without it."""
    return BRIEF if f"CDB-Have: {SHA256}".encode() in request else FULL


def seconds(ask: Callable[[], object]) -> float:
    """The processor time of a call, of this thread alone."""
    begun = time.thread_time()
    ask()
    return time.thread_time() - begun


def test_a_call_takes_about_the_time_of_zeeps_own() -> None:
    """1 kB, not pinned, checked and from the cache: at most 1.1 times zeep's time; medians."""
    with faulty(answered) as server:
        ours = cdb.Calibration(server.url)
        client = zeep.Client(str(files("cdb.wsdl").joinpath("calibration.wsdl")))
        theirs = client.create_service("{urn:mice:cdb:2}CalibrationBinding", f"{server.url}/cdb/v2/calibration")
        assert ours.get_calibration_for_id(1).data == theirs.get_calibration_for_id(1).data == DATA
        times = [
            (seconds(lambda: ours.get_calibration_for_id(1)), seconds(lambda: theirs.get_calibration_for_id(1)))
            for _ in range(ROUNDS)
        ]
    our_time, their_time = (statistics.median(column) for column in zip(*times, strict=True))
    assert our_time <= 1.1 * their_time
