"""Mutations of text: values out of their facets, and characters that are none.

Each changes the text of an argument of a call.
"""

import random
from collections.abc import Callable

from tests.fuzz import schema
from tests.fuzz.structure import Node, Raw, pick, place

TEXTS = (
    "", " ", "\n", "0", "-0", "-1", "1_0", "١٢٣", "１", "²", "9" * 400, "0" * 400 + "1", "0" * 5000 + "1",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1.0", "1e3", "0x1", "NaN", "INF", "abc",
    "true", "+", "+-1", " 1 ", "2016-03-01T24:00:00Z", "2016-03-01T08:00:60Z", "2016-02-30T08:00:00Z",
    "0000-01-01T00:00:00Z", "2016-03-01", "2016-03-01T08:00:00.123456789Z", "2016-03-01T08:00:00.1234560Z",
    "0001-01-01T00:00:00+14:00", "-2016-03-01T08:00:00Z", "9999-12-31T23:59:59.999999-14:00",
    "2016-03-01T08:00:00+14:01", "2016-03-01 08:00:00", "10000-01-01T00:00:00Z", "2016-03-01T08:00:00." + "0" * 5000,
    "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "!!!!", "YW*Jj", "-_-_", "YWJ",
    "YWJj=", "Y===", "====", "YR==", "YW Jj", "YW\u00a0Jj", "YQ==YQ==", "YWJj" * 20_000, "TOF1 ", " TOF1", "A" * 64,
    "A" * 65, "A" * 100_000, "../../etc/passwd", "'; DROP TABLE journal; --", "%s%n", "{0}", "TOF\u202e1",
    "Cafe\u0301", "Café", "ſ", "\u212a", "ß", "ı", "TOF1\r\nX: y", "TOF\t1", "\ufeff", "\x7f", "\x85", "\u2028",
    "\U0001f600", "\U0010ffff", "\ufdd0", "a" * 4096, "a" * 4097, "\U0001f600" * 4096, "\u3000", "0" * 64, "f" * 63,
    "F" * 64, "g" * 64, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "<a>", "]]>", "&amp;", "&",
    "\r",
)  # fmt: skip
# What XML cannot hold, written as it would be.
RAWS = (
    "\x00", "\x01", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800", "\udfff", "&#0;", "&#1;", "&#xD800;", "&#xFFFE;",
    "&#1114112;", "&nbsp;", "&", "<", "]]>", "&lt;", "&#x41;", "&#13;", "&#10;", "<![CDATA[TOF1]]>", "<!-- 1 -->1",
)  # fmt: skip


def another_text(chance: random.Random, call: Node) -> None:
    _, node = pick(chance, call)
    node.children = [chance.choice(TEXTS)]


def another_value(chance: random.Random, call: Node) -> None:
    arguments = [
        argument for side in schema.FILES for known in schema.contract(side).operations.values() for argument in known
    ]
    _, node = pick(chance, call)
    node.children = [schema.value(chance, chance.choice(arguments))]


def raw_text(chance: random.Random, call: Node) -> None:
    _, node = pick(chance, call)
    node.children.insert(place(chance, node), Raw(chance.choice(RAWS)))


def characters(chance: random.Random, call: Node) -> None:
    _, node = pick(chance, call)
    texts = [at for at, child in enumerate(node.children) if isinstance(child, str)]
    if texts:
        at = chance.choice(texts)
        text = list(str(node.children[at]))
        for _ in range(chance.choice((1, 1, 2, 5))):
            at_character = chance.randint(0, len(text))
            other = chr(
                chance.choice((chance.randrange(0x20, 0x7F), chance.randrange(0x20, 0xD800), chance.randrange(0x20)))
            )
            text[at_character : at_character + chance.choice((0, 1))] = [other]
        node.children[at] = "".join(text)


def repeat_text(chance: random.Random, call: Node) -> None:
    _, node = pick(chance, call)
    node.children *= chance.choice((2, 2, 3, 100)) if len(node.children) < 100 else 1


def space_around(chance: random.Random, call: Node) -> None:
    _, node = pick(chance, call)
    node.children.insert(0, chance.choice((" ", "\n", "\t", "\u00a0", "\r")))
    node.children.append(chance.choice((" ", "\n", "")))


TEXT: list[Callable[[random.Random, Node], None]] = [
    another_text, another_text, another_value, raw_text, characters, characters, repeat_text, space_around,
]  # fmt: skip
