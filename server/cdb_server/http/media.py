"""Which bodies are taken: XML in UTF-8, by what the headers say and by what the body itself says."""

import re
from email.message import Message

from starlette.datastructures import Headers

from cdb_server.http.refusals import Refused

_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff", b"\x00<", b"<\x00", b"\x2b\x2f\x76", b"\x4c\x6f\xa7\x94")
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_ASK = "send SOAP 1.1 as text/xml in UTF-8"


def check_headers(headers: Headers) -> None:
    """Refuse (415) a Content-Type that is not text/xml in UTF-8 or US-ASCII, and any Content-Encoding."""
    given = headers.getlist("content-type")
    message = Message()
    message["content-type"] = given[0] if len(given) == 1 else ""
    if message.get_content_type() != "text/xml" or not given[0].strip().lower().startswith("text/xml"):
        raise Refused(415, f"the Content-Type is not text/xml: {_ASK}")
    charset = message.get_param("charset", "utf-8")
    if str(charset).lower() not in _UTF8:
        raise Refused(415, f"the charset is not UTF-8: {_ASK}")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refused(415, f"the body has a Content-Encoding: {_ASK}, not compressed")


def check_body(body: bytes) -> None:
    """Refuse (415) a body whose byte order mark or XML declaration names another encoding."""
    declared = _DECLARED.match(body.removeprefix(b"\xef\xbb\xbf")[:200])
    if body.startswith(_OTHER_MARKS) or (declared and declared[1].decode("latin-1").lower() not in _UTF8):
        raise Refused(415, f"the body is not in UTF-8: {_ASK}")
