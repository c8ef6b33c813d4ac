"""Serves payloads and calibrations by plain GET: Cache-Control, ETag, byte ranges, one shared copy of large payloads.

A peer holds a piece of a payload. While others wait for memory, the payload used least recently is given up, and
read again for the next piece: so slow readers of many cannot keep it from everybody else for as long as they read.

Several ranges at once are answered with the whole, as the RFC allows; so is a number too long to be one.

What never changes may be kept for ever: a payload, and an answer with a fixed as_of. Everything else must be asked for
again, and is answered with 304 where it is as before. An error is never kept.
"""

import hashlib
import re
from collections.abc import Callable
from itertools import count
from typing import NamedTuple
from weakref import WeakValueDictionary

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cdb_server import errors, instants
from cdb_server.arguments import query_instant, query_number
from cdb_server.errors import RETRY_AFTER_SECONDS, STATUS_OF_ERROR, CdbError, LargePayload
from cdb_server.http import metrics, response_cache
from cdb_server.http.admission import MemoryBudget, MemoryReservation, ThreadPool
from cdb_server.http.protocol.request_rules import HttpError
from cdb_server.http.response_cache import PIECE_BYTES
from cdb_server.http.routes import reading
from cdb_server.http.single_flight import SingleFlight
from cdb_server.model import CalibrationRecord
from cdb_server.repository.reader import Reader

OCTET_STREAM = "application/octet-stream"

# Of memory for one byte of a payload: while it is read, the database has it too.
READ_MEMORY_FACTOR = 2

# Of memory for one peer: a piece that waits to be sent, and the next.
CLIENT_MEMORY_BYTES = 2 * PIECE_BYTES


class SharedPayloads:
    """The large payloads of one worker, by their sha256. For the thread of its event loop alone."""

    def __init__(self, reader: Reader, threads: ThreadPool, budget: MemoryBudget) -> None:
        self._reader = reader
        self._threads = threads
        self._budget = budget
        self._payloads: WeakValueDictionary[str, SharedPayload] = WeakValueDictionary()
        self._flights: SingleFlight[str, bytes] = SingleFlight()
        self._use_count = count()
        budget.add_reclaimer(self._drop_least_used)

    def shared(self, sha256: str, size: int) -> "SharedPayload":
        """A payload that there is, of so many bytes; nothing is read yet."""
        payload = self._payloads.get(sha256)
        if payload is None:
            payload = self._payloads[sha256] = SharedPayload(self, sha256, size)
        return payload

    async def reserve(self) -> MemoryReservation:
        """Memory for one peer. Raises Unavailable."""
        return await self._budget.reserve(CLIENT_MEMORY_BYTES)

    async def read_piece(self, payload: "SharedPayload", start: int, stop: int) -> bytes:
        """Some bytes of a payload. Raises DamagedPayload and Unavailable."""
        payload.last_use = next(self._use_count)
        data = payload.data
        if data is None:
            under_way = self._flights.find(payload.sha256)
            if under_way is None:
                under_way = self._flights.start(payload.sha256, self._read(payload))
            data = await under_way.result()
        return data[start:stop]

    async def _read(self, payload: "SharedPayload") -> bytes:
        reservation = await self._budget.reserve(READ_MEMORY_FACTOR * payload.size)
        # What reads it holds the memory, also where nobody waits for it any more.
        data, reservation = await self._threads.run(lambda: (self._reader.payload(payload.sha256), reservation))
        reservation.shrink(payload.size)
        payload.data, payload.reservation = data, reservation
        return data

    def _drop_least_used(self, missing: int) -> None:
        for payload in sorted(self._payloads.values(), key=lambda payload: payload.last_use):
            if missing <= 0:
                return
            if payload.data is not None:
                missing -= payload.size
                payload.data = payload.reservation = None


class SharedPayload:
    """A payload that somebody is sent; `data` while it is in memory, for which there is a reservation."""

    def __init__(self, payloads: SharedPayloads, sha256: str, size: int) -> None:
        self.sha256 = sha256
        self.size = size
        self.last_use = 0
        self.data: bytes | None = None
        self.reservation: MemoryReservation | None = None
        self._payloads = payloads

    async def read_piece(self, start: int, stop: int) -> bytes:
        """Some bytes of it. Raises DamagedPayload and Unavailable."""
        return await self._payloads.read_piece(self, start, stop)


class PayloadResponse(Response):
    """The bytes of a payload from `start` to `stop`, read while they are sent: from when it has begun."""

    def __init__(self, large: LargePayload, start: int, stop: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers, media_type=OCTET_STREAM)
        self.headers["content-length"] = str(stop - start)
        self._large = large
        self._at, self._stop = start, stop

    async def load_first_piece(self, payloads: SharedPayloads) -> None:
        """Have what is sent first. Raises DamagedPayload and Unavailable."""
        self._payload = payloads.shared(self._large.sha256, self._large.size)
        # Until nobody has this any more.
        self._reservation = await payloads.reserve()
        self._piece = await self._next()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while self._piece and scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": self._piece, "more_body": True})
            self._at += len(self._piece)
            try:
                self._piece = await self._next()
            except CdbError:
                # What ends too early is taken for a whole answer by nobody: the connection is closed.
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes:
        return await self._payload.read_piece(self._at, min(self._at + PIECE_BYTES, self._stop))


_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class ByteRange(NamedTuple):
    """The bytes from `start` to `stop`, and what an answer with them says of itself."""

    start: int
    stop: int
    status: int
    headers: dict[str, str]


def select_range(request: Request, size: int, headers: dict[str, str]) -> ByteRange:
    """What is asked for of `size` bytes, with `headers`, among which is the ETag that If-Range is held against.

    Raises HttpError (416) for a range that lies outside.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    whole = ByteRange(0, size, 200, headers)
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    # "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    # handling is not defined. For this specification, GET is the only method".
    if request.method != "GET" or match is None or request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if first and last and int(last) < int(first):
        return whole
    if start >= stop:
        raise HttpError(416, f"there are {size} bytes: none of them is asked for", {"Content-Range": f"bytes */{size}"})
    return ByteRange(start, stop, 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


PAYLOAD_PATH = "/cdb/v2/payload/{sha256}"

CALIBRATION_PATH = "/cdb/v2/calibration/{device_name}/{calibration_type}"

# A year, which is the longest that caches look ahead.
IMMUTABLE = "public, max-age=31536000, immutable"

REVALIDATE = "no-cache"


def rest_routes(reader: Reader, threads: ThreadPool, payloads: SharedPayloads) -> list[Route]:
    """The routes, on one reader that gives no large payloads; those come from `payloads`."""

    def route(path: str, operation: str, answer_request: Callable[[Reader, Request], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            request.scope[metrics.OPERATION_KEY] = operation
            try:
                response = await threads.run(lambda: _answer(reader, request, answer_request))
                if isinstance(response, PayloadResponse):
                    await response.load_first_piece(payloads)
                return response
            except errors.CdbError as error:
                return _refusal(error)

        return Route(path, endpoint, methods=["GET"])

    return [
        route(PAYLOAD_PATH, metrics.PAYLOAD_OPERATION, _payload),
        route(CALIBRATION_PATH, metrics.CALIBRATION_OPERATION, _calibration),
    ]


def _answer(reader: Reader, request: Request, answer_request: Callable[[Reader, Request], Response]) -> Response:
    # Before the answer, so that it knows at least as much as it says.
    position_headers = response_cache.position_headers(reading.read_position(reader))
    try:
        response = answer_request(reader, request)
    except HttpError as refused:
        response = refused.response()
    except errors.CdbError as error:
        response = _refusal(error)
    response.raw_headers += position_headers
    return response


def _refusal(error: errors.CdbError) -> Response:
    status = STATUS_OF_ERROR[type(error)]
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}
    return HttpError(status, " ".join(error.message.split()), headers).response()


def _payload(reader: Reader, request: Request) -> Response:
    _check_query(request.query_params, ())
    sha256 = request.path_params["sha256"]
    data: bytes | errors.LargePayload
    try:
        data = reader.payload(sha256)
    except errors.LargePayload as large:
        data = large
    return _payload_response(request, data, {"ETag": f'"{sha256.lower()}"', "Cache-Control": IMMUTABLE})


def _calibration(reader: Reader, request: Request) -> Response:
    query = request.query_params
    _check_query(query, ("run", "date", "as_of"))
    key = request.path_params["device_name"], request.path_params["calibration_type"]
    as_of = query_instant("as_of", query["as_of"]) if "as_of" in query else None
    if "run" in query and "date" in query:
        raise errors.InvalidArgument("date", "run and date exclude each other: ask for one")
    data: bytes | errors.LargePayload
    try:
        if "run" in query:
            found = reader.calibration_for_run(*key, query_number("run", query["run"]), as_of)
        elif "date" in query:
            found = reader.calibration_for_date(*key, query_instant("date", query["date"]), as_of)
        else:
            found = reader.current_calibration(*key, as_of)
        data = found.data or b""
    except errors.LargePayload as large:
        found, data = large.calibration, large
    # Rule 7: "An answer once given to a question with as_of never changes." A run that is not registered yet is an
    # error, which nobody keeps; once it is, each as_of before that is answered by its first registration, for ever.
    cache_control = REVALIDATE if as_of is None else IMMUTABLE
    return _payload_response(request, data, {"Cache-Control": cache_control, **_calibration_headers(found)})


def _calibration_headers(found: CalibrationRecord) -> dict[str, str]:
    """What a calibration says of itself, in headers."""
    headers = {
        "CDB-Id": str(found.id),
        "CDB-SHA256": found.sha256,
        "CDB-Device-Name": found.device_name,
        "CDB-Calibration-Type": found.calibration_type,
        "CDB-Valid-From": instants.format_instant(found.valid_from),
    }
    if found.valid_until is not None:
        headers["CDB-Valid-Until"] = instants.format_instant(found.valid_until)
    # Of all that is said: the same bytes may be stored again, and a cache that is told 304 keeps the headers it has.
    tag = hashlib.sha256(repr(headers).encode("ascii")).hexdigest()
    return {"ETag": f'"{tag}"', **headers}


def _payload_response(request: Request, data: bytes | errors.LargePayload, headers: dict[str, str]) -> Response:
    """The bytes, a range of them, or word that the caller has them."""
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    if headers["ETag"] in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    size = data.size if isinstance(data, errors.LargePayload) else len(data)
    start, stop, status, headers = select_range(request, size, headers)
    if isinstance(data, errors.LargePayload):
        return PayloadResponse(data, start, stop, status, headers)
    return Response(data[start:stop], status, media_type=OCTET_STREAM, headers=headers)


def _check_query(query: QueryParams, allowed: tuple[str, ...]) -> None:
    for name in query:
        if name not in allowed:
            raise errors.InvalidArgument(
                name[:40], f"{name[:40]!r} cannot be asked here: use {', '.join(allowed) or 'no arguments'}"
            )
    if len(query.multi_items()) != len(query):
        raise errors.InvalidArgument("run", "an argument is given twice")
