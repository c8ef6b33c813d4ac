"""Which bodies are taken: XML in UTF-8, by what the headers say and by what the body itself says."""

import re

from starlette.datastructures import Headers

from cdb_server.http.refusals import Refused

_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")
_UTF8_MARK = b"\xef\xbb\xbf"
# Those of UTF-16 and UTF-7; without one, the first letter of an XML document in UTF-16, UTF-32 and EBCDIC.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"+/v", b"\0<", b"<\0", b"\0\0\0<", b"\x4c")
_DECLARED = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_LONGEST_DECLARATION = 4096

_LONGEST_CONTENT_TYPE = 500
_CONTENT_TYPE = re.compile(r"""text/xml\s*(?:;\s*[^\s=;"]+=(?:"[^"]*"|[^\s;"]+)\s*)*;?\s*""", re.IGNORECASE)
_CHARSET = re.compile(r""";\s*(charset[^\s=;"]*)=("[^"]*"|[^\s;"]+)""", re.IGNORECASE)
_ASK = "send SOAP 1.1 as text/xml in UTF-8"


def check_headers(headers: Headers) -> None:
    """Refuse (415) a Content-Type that is not text/xml in UTF-8 or US-ASCII, and any Content-Encoding."""
    given = headers.getlist("content-type")
    if len(given) != 1 or len(given[0]) > _LONGEST_CONTENT_TYPE or not _CONTENT_TYPE.fullmatch(given[0].strip()):
        raise Refused(415, f"the Content-Type is not text/xml: {_ASK}")
    charsets = _CHARSET.findall(given[0])
    if len(charsets) > 1 or any(
        name.lower() != "charset" or value.strip('"').lower() not in _UTF8 for name, value in charsets
    ):
        raise Refused(415, f"the charset is not UTF-8: {_ASK}")
    if any(coding.strip().lower() != "identity" for coding in headers.getlist("content-encoding")):
        raise Refused(415, f"the body has a Content-Encoding: {_ASK}, not compressed")


def check_body(body: bytes) -> None:
    """Refuse (415) a body whose byte order mark or XML declaration names another encoding."""
    start = body[:_LONGEST_DECLARATION].removeprefix(_UTF8_MARK)
    declared = _DECLARED.match(start)
    if start.startswith(_OTHER_MARKS) or (declared and declared[1].decode("latin-1").lower() not in _UTF8):
        raise Refused(415, f"the body is not in UTF-8: {_ASK}")
