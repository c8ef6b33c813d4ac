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
        return PlainTextResponse(f"{self.text}\n", self.status, self.headers)
