"""Payloads and calibrations by plain GET, for caches and curl: the same rules, and what a cache may do with an answer.

What never changes may be kept for ever: a payload, and an answer with a fixed as_of. Everything else must be asked for
again, and is answered with 304 where it is as before. An error is never kept.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdb_server import errors, instants
from cdb_server.http import knowledge, ranges, tally
from cdb_server.http.payloads import OCTETS, PayloadResponse, Payloads
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS, Threads
from cdb_server.model import GREATEST_NUMBER, CalibrationRecord
from cdb_server.repository import Reader

PAYLOAD_PATH = "/cdb/v2/payload/{sha256}"
CALIBRATION_PATH = "/cdb/v2/calibration/{device_name}/{calibration_type}"

# A year, which is the longest that caches look ahead.
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

_STATUS: dict[type[errors.CdbError], int] = {
    errors.CalibrationNotFound: 404,
    errors.RunNotFound: 404,
    errors.PayloadNotFound: 404,
    errors.InvalidArgument: 400,
    errors.AsOfNotReached: 503,
    errors.Unavailable: 503,
    errors.DamagedPayload: 500,
}


def plain_routes(reader: Reader, threads: Threads, payloads: Payloads) -> list[Route]:
    """The routes, on one reader that gives no large payloads; those come from `payloads`."""

    def route(path: str, operation: str, answered: Callable[[Reader, Request], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            request.scope[tally.OPERATION] = operation
            try:
                response = await threads.do(lambda: _answer(reader, request, answered))
                if isinstance(response, PayloadResponse):
                    await response.begin(payloads)
                return response
            except errors.CdbError as error:
                return _refusal(error)

        return Route(path, endpoint, methods=["GET"])

    return [
        route(PAYLOAD_PATH, tally.PAYLOAD, _payload),
        route(CALIBRATION_PATH, tally.CALIBRATION, _calibration),
    ]


def _answer(reader: Reader, request: Request, answered: Callable[[Reader, Request], Response]) -> Response:
    # Before the answer, so that it knows at least as much as it says.
    known = knowledge.headers(knowledge.known(reader))
    try:
        response = answered(reader, request)
    except Refused as refused:
        response = refused.response()
    except errors.CdbError as error:
        response = _refusal(error)
    response.raw_headers += known
    return response


def _refusal(error: errors.CdbError) -> Response:
    status = _STATUS[type(error)]
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    return Refused(status, " ".join(error.message.split()), headers).response()


def _payload(reader: Reader, request: Request) -> Response:
    _check_arguments(request.query_params, ())
    sha256 = request.path_params["sha256"]
    data: bytes | errors.LargePayload
    try:
        data = reader.payload(sha256)
    except errors.LargePayload as large:
        data = large
    return _given(request, data, {"ETag": f'"{sha256.lower()}"', "Cache-Control": FOR_EVER})


def _calibration(reader: Reader, request: Request) -> Response:
    asked = request.query_params
    _check_arguments(asked, ("run", "date", "as_of"))
    key = request.path_params["device_name"], request.path_params["calibration_type"]
    as_of = _instant("as_of", asked["as_of"]) if "as_of" in asked else None
    if "run" in asked and "date" in asked:
        raise errors.InvalidArgument("date", "run and date exclude each other: ask for one")
    data: bytes | errors.LargePayload
    try:
        if "run" in asked:
            found = reader.calibration_for_run(*key, _number("run", asked["run"]), as_of)
        elif "date" in asked:
            found = reader.calibration_for_date(*key, _instant("date", asked["date"]), as_of)
        else:
            found = reader.current_calibration(*key, as_of)
        data = found.data or b""
    except errors.LargePayload as large:
        found, data = large.found, large
    # Rule 7: "An answer once given to a question with as_of never changes." A run that is not registered yet is an
    # error, which nobody keeps; once it is, each as_of before that is answered by its first registration, for ever.
    may_be_kept = ASK_AGAIN if as_of is None else FOR_EVER
    return _given(request, data, {"Cache-Control": may_be_kept, **_origin(found)})


def _origin(found: CalibrationRecord) -> dict[str, str]:
    """What a calibration says of itself, in headers."""
    told = {
        "CDB-Id": str(found.id),
        "CDB-SHA256": found.sha256,
        "CDB-Device-Name": found.device_name,
        "CDB-Calibration-Type": found.calibration_type,
        "CDB-Valid-From": instants.spell(found.valid_from),
    }
    if found.valid_until is not None:
        told["CDB-Valid-Until"] = instants.spell(found.valid_until)
    # Of all that is said: the same bytes may be stored again, and a cache that is told 304 keeps the headers it has.
    tag = hashlib.sha256(repr(told).encode("ascii")).hexdigest()
    return {"ETag": f'"{tag}"', **told}


def _given(request: Request, data: bytes | errors.LargePayload, headers: dict[str, str]) -> Response:
    """The bytes, a range of them, or word that the caller has them."""
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    if headers["ETag"] in tags or "*" in tags:
        return Response(status_code=304, headers=headers)
    size = data.size if isinstance(data, errors.LargePayload) else len(data)
    start, stop, status, headers = ranges.part(request, size, headers)
    if isinstance(data, errors.LargePayload):
        return PayloadResponse(data, start, stop, status, headers)
    return Response(data[start:stop], status, media_type=OCTETS, headers=headers)


def _check_arguments(asked: QueryParams, known: tuple[str, ...]) -> None:
    for name in asked:
        if name not in known:
            raise errors.InvalidArgument(
                name[:40], f"{name[:40]!r} cannot be asked here: use {', '.join(known) or 'no arguments'}"
            )
    if len(asked.multi_items()) != len(asked):
        raise errors.InvalidArgument("run", "an argument is given twice")


def _instant(argument: str, text: str) -> datetime:
    try:
        return instants.parse(text)
    except ValueError as error:
        hint = "; an offset's + is written %2B in an address, where + itself is a space" if _lost_its_plus(text) else ""
        raise errors.InvalidArgument(argument, f"{argument}: {error}{hint}") from None


def _lost_its_plus(text: str) -> bool:
    time, _, offset = text.rpartition(" ")
    with suppress(ValueError):
        instants.parse(f"{time}+{offset}")
        return True
    return False


def _number(argument: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(GREATEST_NUMBER)):
        raise errors.InvalidArgument(argument, f"{argument} must be a whole number from 1 to {GREATEST_NUMBER}")
    return int(text)
