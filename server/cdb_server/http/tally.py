"""Counting requests, each once: those that a connection answers itself, and those that the application answers."""

from bisect import bisect_left
from time import perf_counter_ns

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server import soap
from cdb_server.http.counts import BOUNDS, FAILED, FOUND, MISSES, OUTCOMES, READY, SUM, Counts, Layout
from cdb_server.http.ready import Ready
from cdb_server.pages import PAGE_NAMES

# Where the connections find the tally in the state of the application's lifespan.
TALLY = "cdb.tally"
# Where the application leaves, in a request's scope, which operation it is, or its answer by SOAP, which says it too.
OPERATION, ANSWER = "cdb.operation", "cdb.answer"
# By GET, beside the operations of SOAP.
PAYLOAD, CALIBRATION, WSDL, METRICS = "payload", "calibration", "wsdl", "metrics"
# A request that was turned away before anybody looked what it asks for.
UNKNOWN = "-"
# Of HTTP's own answers, those that there are.
REFUSALS = (400, 401, 403, 404, 405, 408, 413, 415, 416, 431, 500, 501, 503, 505)
OTHER = "other"


def layout() -> Layout:
    """What is told apart: nothing that a caller could make up."""
    return Layout(
        (*soap.operations(), *soap.legacy_operations(), PAYLOAD, CALIBRATION, WSDL, METRICS, *PAGE_NAMES, UNKNOWN),
        (*soap.FAULT_NAMES, *map(str, REFUSALS), OTHER),
    )


class Tally:
    """What one worker counts. For the thread of its event loop alone."""

    def __init__(self, counts: Counts) -> None:
        self._row = counts.row()
        self._places = counts.layout.places()
        self._unknown = self._places[counts.layout.operations[-1]]
        self._outcomes = {name: OUTCOMES + at for at, name in enumerate(counts.layout.outcomes)}
        self._other = self._outcomes[counts.layout.outcomes[-1]]

    def answered(self, ready: Ready, began: int) -> None:
        """Count an answer by SOAP to a request that `began` at an instant of perf_counter_ns."""
        took = perf_counter_ns() - began
        row = self._row
        try:
            place = self._places[ready.operation]
        except KeyError:
            place = self._unknown
        if ready.given:
            kind = READY
        elif ready.fault:
            kind = FAILED
            row[place + self._outcomes.get(ready.fault, self._other)] += 1
        else:
            kind = FOUND
            ready.given = True
            if ready.lasting is not None:
                row[MISSES] += 1
        row[place + kind + bisect_left(BOUNDS, took)] += 1
        row[place + SUM] += took

    def responded(self, operation: str, status: int, began: int) -> None:
        """Count an answer by HTTP alone, as `answered`."""
        took = perf_counter_ns() - began
        place = self._places.get(operation, self._unknown)
        kind = FOUND
        if status >= 400:
            kind = FAILED
            self._row[place + self._outcomes.get(str(status), self._other)] += 1
        self._row[place + kind + bisect_left(BOUNDS, took)] += 1
        self._row[place + SUM] += took

    def refused(self, status: int) -> None:
        """Count what a connection turns away by itself."""
        self.responded(UNKNOWN, status, perf_counter_ns())


class Counted:
    """Around the application: counts each request when its answer begins."""

    def __init__(self, app: ASGIApp, tally: Tally) -> None:
        self._app = app
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter_ns()
        counted = False

        def count(status: int) -> None:
            nonlocal counted
            if not counted and (ready := scope.get(ANSWER)):
                self._tally.answered(ready, began)
            elif not counted:
                self._tally.responded(scope.get(OPERATION, UNKNOWN), status, began)
            counted = True

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            # What becomes of it further out.
            count(500)
            raise
        finally:
            # A connection keeps the scope until its next request, and the answer would keep its room as long.
            scope.pop(ANSWER, None)
