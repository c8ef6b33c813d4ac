"""Payloads that nobody meant: each may be stored, and must have a page, a preview, a comparison and an archive.

Some by name, each with something that is easily overlooked; and as many as one likes made of pieces, by their numbers.
"""

import json
import random
from collections.abc import Callable, Mapping

MEBIBYTE = 2**20
# About as much as is read as JSON.
JSON = 3 * 2**19
# Of a payload that is as large as one may be, and a little less than that.
LARGE = 30 * MEBIBYTE

# As they may stand in a table or in JSON: ends of what a float holds and beyond, and what only looks like a number.
NUMBERS = (
    *("0", "-0", "0.0", "-0.0", "1", "-1", "1.5", "00", "+1", "1e5", ".5", "5.", "1E+05"),
    *("5e-324", "-5e-324", "5e-323", "1e-320", "2.2250738585072014e-308", "1e-310", "-1e-310"),
    *("1e308", "-1e308", "1.7976931348623157e308", "-1.7976931348623157e308", "8.98846567431158e307", "1e309"),
    *("9007199254740993", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "340282366920938e24"),
    *("1" + "0" * 308, "1" + "0" * 309, "1" + "0" * 400, "9" * 4299, "9" * 4300, "9" * 4301, "0." + "1" * 5000),
    *("0." + "0" * 400 + "1", "1e-999999", "1e999999", "1e" + "9" * 400, "-1e" + "9" * 400, "1" * 40 + "e-39"),
    *("1.0000000000000002", "0.9999999999999999", "123456789.123456789", "1e16", "1e-5", "1e15", "1e-7"),
    *("nan", "NaN", "inf", "-inf", "Infinity", "-Infinity", "1_000", "0x10", "1e", "e1", "--1", "\u0664", "\uff11"),
)
TEXTS = (
    *("", "a", "tof1", "<b>", "&amp;", '"', "'", "{{ 7 * 7 }}", "{% raw %}", "</script>", "a" * 300, "e\u0301"),
    *("\u00e9", "\u202e", "\u200b", "\ufeff", "\U0001f600", "\U0010ffff", "\ufffe", "\u2028", "\u2029", "\x0b"),
    *("\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xa0", "\u3000", "%", "%s", "{}", "\\", "\\u0000", "=1+1", "#", "# "),
)
SURROGATES = ('"\\ud800"', '"\\udfff"', '"\\ud800\\ud800"', '"a\\udc80b"', '"\\ud83d\\ude00"')


def _table(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def _wide(cell: Callable[[int, int], str]) -> bytes:
    return _table(*(" ".join(cell(row, column) for column in range(40)) for row in range(5_000)))


def _sized(piece: bytes, size: int = LARGE) -> bytes:
    return (piece * (size // len(piece) + 1))[:size]


def _bomb() -> bytes:
    entities = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY x0 "ha">{entities}]><x>&x9;</x>'.encode()


_OBJECTS = [
    "[{" + ",".join(f'"field {n}": {n}' for n in range(40)) + "}]",
    '[{"\\ud800": 1.5}, {"\\ud800": 2.5}]',
    '[{"key": "\\ud800", "gain": 1.5}, {"key": "\\udc00", "gain": 2.5}]',
    '[{"": 1.5}, {"": 2.5}]',
    '[{"a": 1.5, "a": "b"}, {"a": 2.5}]',
    '[{"a": NaN}, {"a": Infinity}, {"a": -Infinity}]',
    '[{"a": 1e999}, {"a": -1e999}]',
    f'[{{"a": {"9" * 4301}}}, {{"a": 1}}]',
    f'[{{"a": {"9" * 4300}}}, {{"a": 1}}]',
    f'[{{"a": {"9" * 4300}, "b": 1.5}}, {{"a": -{"8" * 4300}, "b": 5e-324}}]',
    f'[{{"a": {"9" * 400}}}, {{"a": 1.5}}]',
    '[{"a": true}, {"a": false}]',
    '[{"a": true, "b": 1}, {"a": 1, "b": 1.0}]',
    '[{"a": null}, {"a": null}]',
    '[{"a": "1\\n2"}, {"a": "\\u0000"}]',
    '[{"a": " "}, {"a": "\\u001b[2J"}]',
    '[{"a": "b"}, 1]',
    "[{}, {}]",
    "[[], []]",
    "[null]",
]

NAMED: Mapping[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a denormal range": lambda: _table("a 0", "b 5e-323"),
    "the least range": lambda: _table("a 0", "b 5e-324"),
    "one denormal": lambda: _table("a 5e-324", "b 5e-324"),
    "the greatest range": lambda: _table("a -1.7976931348623157e308", "b 1.7976931348623157e308"),
    "half the greatest range": lambda: _table("a -8e307", "b 8e307"),
    "the greatest number": lambda: _table("a 1.7976931348623157e308", "b 1.7976931348623157e308"),
    "a sum beyond what a float holds": lambda: _table(*(f"c{n} 1.7e308" for n in range(500))),
    "a mean of the greatest": lambda: _table(*(f"c{n} {1.7e308 if n % 2 else -1.7e308}" for n in range(500))),
    "neighbours": lambda: _table("a 1", "b 1.0000000000000002"),
    "far neighbours": lambda: _table("a 9007199254740992", "b 9007199254740993", "c 9007199254740994"),
    "a wide range": lambda: _table("a 5e-324", "b 1.7976931348623157e308"),
    "no number at all": lambda: _table("a nan", "b inf", "c -inf"),
    "numbers of thousands of digits": lambda: _table(f"a {'9' * 4301}", f"b 0.{'1' * 5000}"),
    "other digits": lambda: _table("a \u0664\u0662", "b \uff11"),
    "each number": lambda: _table(*(f"c{n} {number}" for n, number in enumerate(NUMBERS))),
    "a surrogate": lambda: b'{"a":"\\ud800"}',
    "a surrogate for a name": lambda: b'{"\\ud800": {"\\udfff": 1}}',
    "surrogates in a list": lambda: f"[{', '.join(SURROGATES)}]".encode(),
    "a surrogate as if it were utf-8": lambda: b"a \xed\xa0\x80\nb \xed\xbf\xbf\n",
    "an overlong NUL": lambda: b"a \xc0\x80\n",
    "NULs": lambda: bytes(1000),
    "a byte order mark": lambda: b"\xef\xbb\xbfa 1\nb 2\n",
    "a byte order mark before JSON": lambda: b'\xef\xbb\xbf{"a": 1}',
    "utf-16": lambda: "a 1\nb 2\n".encode("utf-16"),
    "control characters": lambda: bytes(range(32)) + b"\x1b]0;title\x07\x1b[2J\x7f",
    "C1 controls": lambda: bytes(range(0x80, 0xA0)),
    "all bytes": lambda: bytes(range(256)),
    "lines of other sorts": lambda: "a 1\u2028b 2\u2029c 3\x85d 4\rf 5\r\ng 6\x0bh 7\x0ci 8\n".encode(),
    "carriage returns": lambda: b"a 1\rb 2\r",
    "one carriage return": lambda: b"\r",
    "one newline": lambda: b"\n",
    "white space": lambda: b" \t \n\t\n",
    "spaces of other sorts": lambda: "a\u3000 1\n\u00a0b\u2003 2\n".encode(),
    "directional marks": lambda: "\u202ea 1\n\u2066b 2\n".encode(),
    "markup": lambda: b"<script>alert(1)</script> 1\n{{ 7 * 7 }} 2\n",
    "only comments": lambda: b"#\n# a b\n#\n",
    "a heading alone": lambda: b"a b\n",
    "a heading twice the same": lambda: b"a a\n1 2\n3 4\n",
    "a heading of no width": lambda: "# \u200b \u200c\n1 2\n3 4\n".encode(),
    "commas alone": lambda: b",,,\n,,,\n,,,\n",
    "quoted commas": lambda: b'"a,b",1\n"c\n,d",2\n',
    "an open quote": lambda: b'"a,1\nb,2\n',
    "fields of no length": lambda: b"a,,1\nb,,2\n",
    "two rows the same": lambda: b"a 1\na 1\n",
    "40 columns": lambda: _table(*(" ".join(f"{n}.{c}" for c in range(40)) for n in range(300))),
    "40 columns of thousands": lambda: _wide(lambda row, column: f"{row * column % 9973}.5"),
    "40 columns all the same": lambda: (b"1 " * 39 + b"1\n") * 12_000,
    "40 columns that tell little apart": lambda: _wide(lambda row, column: str(row) if column == 39 else "1"),
    "40 columns of texts": lambda: _wide(lambda row, column: f"x{row % 97}y{column % 10}"),
    "cells of quotes": lambda: _table(*(" ".join(['"' * 120] * 39 + [str(n)]) for n in range(200))),
    "ampersands": lambda: _table(*("&" * 3_000 for _ in range(400))),
    "signs, every other a": lambda: _table(*("a," * 200 for _ in range(400))),
    "signs, every other b": lambda: _table(*("b," * 200 for _ in range(400))),
    "deep JSON": lambda: b"[" * 100_000 + b"]" * 100_000,
    "deep objects": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "JSON as deep as Python reads": lambda: b"[" * 900 + b"]" * 900,
    "deep JSON that breaks off": lambda: b"[" * 500_000,
    "broad and deep JSON": lambda: b"[" + b",".join([b"[" * 200 + b"]" * 200] * 2_000) + b"]",
    "duplicated keys": lambda: b"{" + b",".join([b'"a": 1'] * 200_000) + b"}",
    "large numbers in JSON": lambda: f"[{'9' * 10_000}]".encode(),
    "a number at Python's limit": lambda: f"[{'9' * 4300}, -{'9' * 4300}]".encode(),
    "many numbers at Python's limit": lambda: f"[{', '.join(['9' * 4300] * 360)}]".encode(),
    "NaN in JSON": lambda: b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e400, "e": -0.0}',
    "JSON without an end": lambda: b'{"a": [1, 2',
    "JSON in latin-1": lambda: '{"a": "\u00e9"}'.encode("latin-1"),
    "JSON and more": lambda: b'{"a": 1} {"b": 2}',
    "a long string in JSON": lambda: f'["{"a" * 1_500_000}"]'.encode(),
    "a long name in JSON": lambda: f'{{"{"a" * 1_500_000}": 1}}'.encode(),
    "escapes in JSON": lambda: f'["{chr(92)}u00e9{chr(92)}n{chr(92)}u0000"]'.encode(),
    "many numbers in JSON": lambda: f"[{','.join(['1'] * 750_000)}]".encode(),
    "many lists in JSON": lambda: f"[{','.join(['[]'] * 510_000)}]".encode(),
    "many objects in JSON": lambda: f"[{','.join(['{}'] * 510_000)}]".encode(),
    "many fields in JSON": lambda: json.dumps({f"f{n}": n for n in range(80_000)}).encode(),
    "many rows in JSON": lambda: json.dumps([{"a": n, "b": n / 7} for n in range(40_000)]).encode(),
    "wide rows in JSON": lambda: json.dumps([{f"f{c}": n / 7 for c in range(40)} for n in range(1_550)]).encode(),
    "newlines in JSON": lambda: b"[" + b"\n" * (JSON - 2) + b"]",
    "empty texts in JSON": lambda: b"[" + b",".join([b'""'] * 510_000) + b"]",
    "pairs in JSON": lambda: b"{" + b",".join(b'"%x":0' % n for n in range(150_000)) + b"}",
    "spaces in JSON": lambda: b"[" + b" " * (JSON - 2) + b"]",
    "an XML bomb": _bomb,
    "many columns": lambda: b" ".join([b"1"] * 5_000_000) + b"\n",
    "many columns twice": lambda: _sized(b"1 " * 400_000 + b"\n", 2 * MEBIBYTE),
    "many commas": lambda: b"," * LARGE,
    "many rows": lambda: _sized(b"tof1 12345.5 3\n"),
    "many rows that differ": lambda: b"".join(b"%d %d.5\n" % (n, n * 7919 % 10_007) for n in range(2_000_000)),
    "many narrow rows": lambda: _sized(b"1 2\n"),
    "many rows of the greatest": lambda: b"".join(b"%d %de304\n" % (n, n) for n in range(20_000)),
    "many newlines": lambda: b"\n" * LARGE,
    "many carriage returns": lambda: b"\r" * LARGE,
    "many comments": lambda: b"#\n" * (LARGE // 2),
    "one line": lambda: b"x" * LARGE,
    "one line of words": lambda: _sized(b"word "),
    "one line of white space": lambda: b" " * LARGE,
    "one line of brackets": lambda: b"[" * LARGE,
    "one line of pieces": lambda: _sized(b'{"a": 1}, '),
    "commas and white space": lambda: (b"," + b" " * 1000) * 1000 + b"\n",
    "brackets and white space": lambda: b"[" + b"[],".ljust(190_000) * 10 + b"[]]",
    "one line of marks": lambda: "e\u0301".encode() * (LARGE // 3),
    "one line cut in a character": lambda: b"x" + "\u00e9".encode() * (LARGE // 2),
    "random bytes": lambda: random.Random(1).randbytes(LARGE),
    "NULs in large number": lambda: bytes(LARGE),
    "text and then bytes": lambda: _sized(b"a 1\n", 2 * MEBIBYTE) + bytes(range(256)),
    "lines that repeat": lambda: b"a\nb\n" * 5_000,
    "lines that repeat otherwise": lambda: b"b\na\na\n" * 3_334,
    "no line twice": lambda: b"".join(b"line %d\n" % n for n in range(10_000)),
    "every other line another": lambda: b"".join(b"line %d\n" % (n if n % 2 else -n) for n in range(10_000)),
    "lines of 400 words": lambda: _table(*(" ".join(f"{n}{c}" for c in range(100)) for n in range(400))),
    "lines of 400 signs": lambda: _table(*(",;" * 200 for _ in range(400))),
    **{f"objects {n}": lambda text=text: text.encode() for n, text in enumerate(_OBJECTS)},  # type: ignore[misc]
}


def generated(number: int) -> bytes:
    """A payload made of pieces: the same for the same number."""
    chance = random.Random(number)
    return chance.choice((_rows, _json, _objects, _bytes, _spoiled))(chance)


def _rows(chance: random.Random) -> bytes:
    """A table, or nearly."""
    separator = chance.choice((" ", "\t", ",", ", ", "  ", ";"))
    width = chance.choice((1, 2, 2, 3, 8, 40, 41))
    # A column of one sort: else it is hardly ever taken for numbers.
    sorts = [chance.choice((NUMBERS, NUMBERS[:30], NUMBERS, TEXTS, _numbered(chance))) for _ in range(width)]
    rows = [separator.join(chance.choice(sort) for sort in sorts) for _ in range(chance.choice((1, 2, 3, 30, 300)))]
    if chance.random() < 0.2:
        rows[0] = chance.choice(("# ", "", "#")) + separator.join(chance.choice(TEXTS) for _ in range(width))
    return chance.choice(("\n", "\n", "\r\n")).join(rows).encode("utf-8", "replace")


def _numbered(chance: random.Random) -> tuple[str, ...]:
    """Numbers of a range of their own."""
    scale = 10.0 ** chance.randint(-323, 308)
    return tuple(repr(chance.uniform(-1, 1) * scale) for _ in range(50))


def _json(chance: random.Random) -> bytes:
    return _value(chance, chance.randint(1, 6)).encode("utf-8", "replace")


def _value(chance: random.Random, depth: int) -> str:
    kind = chance.randint(0, 6 if depth else 4)
    if kind == 0:
        return chance.choice(NUMBERS)
    if kind == 1:
        return chance.choice(SURROGATES)
    if kind == 2:
        return json.dumps(chance.choice(TEXTS), ensure_ascii=chance.random() < 0.5)
    if kind <= 4:
        return chance.choice(("null", "true", "false", "NaN", "-Infinity", "1e400", "[]", "{}", '""'))
    parts = [_value(chance, depth - 1) for _ in range(chance.choice((0, 1, 2, 5, 20)))]
    if kind == 5:
        return f"[{','.join(parts)}]"
    return f"{{{','.join(f'{_name(chance)}: {part}' for part in parts)}}}"


def _name(chance: random.Random) -> str:
    return chance.choice((*SURROGATES, '""', '"a"', json.dumps(chance.choice(TEXTS))))


def _objects(chance: random.Random) -> bytes:
    """A list of objects with the same fields, or nearly."""
    names = [_name(chance) for _ in range(chance.choice((1, 2, 5, 40)))]
    sorts: list[Callable[[], str]] = [
        chance.choice(
            (
                lambda: chance.choice(NUMBERS[:40]),
                lambda: chance.choice(SURROGATES),
                lambda: json.dumps(chance.choice(TEXTS)),
                lambda: repr(chance.uniform(-1, 1) * 10.0 ** chance.randint(-323, 308)),
                lambda: chance.choice(("true", "false", "1", "1.0")),
            )
        )
        for _ in names
    ]
    rows = (
        "{" + ",".join(f"{name}: {sort()}" for name, sort in zip(names, sorts, strict=True)) + "}"
        for _ in range(chance.choice((1, 2, 30, 300)))
    )
    return f"[{', '.join(rows)}]".encode("utf-8", "replace")


def _bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 2, 100, 5_000)))


def _spoiled(chance: random.Random) -> bytes:
    """Another one, with something cut off, put in or turned over."""
    data = bytearray(chance.choice((_rows, _json, _objects))(chance))
    at = chance.randrange(len(data) or 1)
    match chance.randint(0, 3):
        case 0:
            del data[at:]
        case 1:
            data[at:at] = chance.choice((b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"#", b","))
        case 2:
            data[at : at + 1] = chance.randbytes(1)
        case _:
            data = data * 2
    return bytes(data)
