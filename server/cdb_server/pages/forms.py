"""What a form sent: its texts, and the file that was dropped into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from cdb_server.errors import MalformedRequest

# More than any form has.
MOST_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file of a form: the name that it has where it comes from, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent. A file that nobody chose is not among the files."""

    texts: Mapping[str, str]
    files: Mapping[str, Dropped]

    def text(self, name: str) -> str:
        """What was typed; empty where nothing was. Lines end as they do here, not as forms send them."""
        return self.texts.get(name, "").replace("\r\n", "\n").strip()


def parse(content_type: str, body: bytes) -> Form:
    """The form of a request's body. Raises MalformedRequest."""
    kind, options = parse_options_header(content_type)
    try:
        if kind == b"multipart/form-data":
            return _of_parts(options.get(b"boundary"), body)
        if kind == b"application/x-www-form-urlencoded":
            text = body.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
            return Form(dict(pairs), {})
    except (FormParserError, ValueError):
        raise MalformedRequest("the form did not come as it was sent: send it again") from None
    raise MalformedRequest("the form was not sent as the forms of this site are")


def _of_parts(boundary: bytes | None, body: bytes) -> Form:
    texts: dict[str, str] = {}
    files: dict[str, Dropped] = {}

    def on_field(field: Field) -> None:
        texts[(field.field_name or b"").decode("utf-8")] = (field.value or b"").decode("utf-8")

    def on_file(file: File) -> None:
        if file.file_name:
            file.file_object.seek(0)
            name = file.file_name.decode("utf-8", "replace")
            files[(file.field_name or b"").decode("utf-8")] = Dropped(name, file.file_object.read())

    # All of it is in memory, within its limit: none of it is put into a file meanwhile.
    whole = len(body) + 1
    config = {"MAX_MEMORY_FILE_SIZE": whole, "MAX_BODY_SIZE": whole}
    parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary, config=config)
    parser.write(body)
    parser.finalize()
    return Form(texts, files)
