"""HTTP's own answers: one line of plain text."""

from starlette.responses import PlainTextResponse


class Refused(Exception):
    """A request turned away before SOAP looks at it."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers

    def response(self) -> PlainTextResponse:
        """The answer that says so."""
        # What is refused now may be answered later: no cache shall remember it, as some do a 404 without this.
        return PlainTextResponse(f"{self.text}\n", self.status, {"Cache-Control": "no-store", **(self.headers or {})})
