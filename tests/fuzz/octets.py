"""Mutations of bytes: of a request as it is written, whatever it says; and floods, rare for the time they take."""

import random
from collections.abc import Callable

PROLOGUES = (
    '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8"?>', "<?xml version='1.0' encoding='utf-8'?>\n",
    "\ufeff", "<!-- a comment -->", "\n",
)  # fmt: skip
TOKENS = (
    b"<", b">", b"&", b"'", b'"', b"/", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?", b"?>", b"<!DOCTYPE a>", b"\x00",
    b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xef\xbf\xbf", b"&#0;", b"&a;",
    b" ", b"\r\n", b"xmlns=''", b' a="b"', b"<a>", b"</a>", b"<a/>", b":", b"=", b"%", b"\\", b"0", b"-", b"<t:as_of>",
    b"{", b"\n",
)  # fmt: skip
DOCTYPES = (
    b"<!DOCTYPE a>", b'<!DOCTYPE a [<!ENTITY a "b">]>', b'<!DOCTYPE a SYSTEM "file:///dev/null">', b"<!DOCTYPE a [",
    b'<!DOCTYPE a [<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a;]>', b'<!--><a--><!DOCTYPE a [<!ENTITY a "b">]>',
    b'<?a <b?><!DOCTYPE a [<!ENTITY a "b">]>', b'<!---><a--><!DOCTYPE a>',
    b'<!DOCTYPE a [<!ATTLIST s:Body a CDATA "b">]>',
    b'<!--> <a --><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY a "&b;&b;&b;&b;&b;&b;&b;&b;">]>',
)  # fmt: skip


def flip(chance: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, body: bytes) -> bytes:
    start, end = sorted((chance.randint(0, len(body)), chance.randint(0, len(body))))
    return (
        chance.choice((body[:start], body[start:], body[:start] + body[end:], body[:start] + body[start + 1 :])) or b" "
    )


def add(chance: random.Random, body: bytes) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + chance.choice((chance.choice(TOKENS), chance.randbytes(chance.choice((1, 2, 20))))) + body[at:]


def put_token(chance: random.Random, body: bytes) -> bytes:
    at = chance.randint(0, len(body))
    token = chance.choice(TOKENS)
    return body[:at] + token + body[at + len(token) :]


def double(chance: random.Random, body: bytes) -> bytes:
    start, end = sorted((chance.randint(0, len(body)), chance.randint(0, len(body))))
    return body[:end] + body[start:end] + body[end:]


def doctype(chance: random.Random, body: bytes) -> bytes:
    body = chance.choice(DOCTYPES) + body
    if chance.random() < 0.5:
        at = body.rfind(b"</t:")
        body = body[:at] + b"&a;" + body[at:]
    return body


def encode(chance: random.Random, body: bytes) -> bytes:
    encoding = chance.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp037", "utf-7", "cp1252"))
    declared = chance.choice(("", f"<?xml version='1.0' encoding='{encoding}'?>"))
    return (declared + body.decode("utf-8", "replace")).encode(encoding, "replace")


def around(chance: random.Random, body: bytes) -> bytes:
    piece = chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"<?xml version='1.1'?>", b" ", b"\x00", b"<!-- -->", b"<a/>"))
    return chance.choice((piece + body, body + piece))


BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    flip,
    flip,
    cut,
    add,
    add,
    put_token,
    double,
    doctype,
    encode,
    around,
]


# As much as one likes, of one thing.


def many_elements(body: bytes) -> bytes:
    return body.replace(b"</s:Body>", b"<t:a/>" * 200_000 + b"</s:Body>")


def deep(body: bytes) -> bytes:
    return body.replace(b"</s:Body>", b"<t:a>" * 100_000)


def many_attributes(body: bytes) -> bytes:
    return body.replace(b"<s:Body", b"<s:Body" + b"".join(b' a%d=""' % n for n in range(50_000)))


def many_namespaces(body: bytes) -> bytes:
    return body.replace(b"<s:Body", b"<s:Body" + b"".join(b' xmlns:a%d="u"' % n for n in range(20_000)))


def long_text(body: bytes) -> bytes:
    return body.replace(b"</t:", b"a" * 2_000_000 + b"</t:", 1)


def long_space(body: bytes) -> bytes:
    return body + b" " * 10_000_000


FLOODS: list[Callable[[bytes], bytes]] = [many_elements, deep, many_attributes, many_namespaces, long_text, long_space]
