"""The contract as a generator sees it: operations, arguments, types with their facets, and values that fit them."""

import base64
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib.resources import files

from lxml import etree

NAMESPACE = "urn:mice:cdb:2"
XS = "{http://www.w3.org/2001/XMLSchema}"
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"

FILES = {"reading": "calibration.wsdl", "writing": "calibration_supermouse.wsdl"}

# So few that questions meet what was stored, and that what is stored is often stored again.
DEVICES = ("TOF0", "TOF1", "KL", "EMR", "CKOV A", "Tracker_1")
TYPES = ("t0", "tw", "cabling")
MOMENTS = tuple(datetime(2016, 3, 1, 8) + timedelta(days=day) for day in range(8))
PAYLOADS = tuple(b"%d\n" % number * number for number in range(1, 5))
NUMBERS = 40


@dataclass(frozen=True)
class Type:
    """A simple type: its base and its facets."""

    name: str
    base: str
    pattern: str | None = None
    min_length: int = 0
    max_length: int | None = None
    min_inclusive: int = -(2**63)
    max_inclusive: int = 2**63 - 1
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Argument:
    """An argument of an operation."""

    name: str
    type: Type
    required: bool


@dataclass(frozen=True)
class Contract:
    """One WSDL file."""

    operations: dict[str, tuple[Argument, ...]]
    faults: dict[str, frozenset[str]]
    validator: etree.XMLSchema = field(repr=False)


@cache
def contract(side: str) -> Contract:
    """The contract of a side, `reading` or `writing`."""
    definitions = etree.fromstring(files("cdb.wsdl").joinpath(FILES[side]).read_bytes())
    schema = definitions.find(f"{WSDL}types/{XS}schema")
    assert schema is not None
    named = {f"tns:{simple.get('name')}": _type(simple) for simple in schema.findall(f"{XS}simpleType")}
    operations, faults = {}, {}
    for operation in definitions.findall(f"{WSDL}portType/{WSDL}operation"):
        name = operation.attrib["name"]
        arguments = schema.findall(f"{XS}element[@name='{name}']/{XS}complexType/{XS}sequence/{XS}element")
        operations[name] = tuple(
            Argument(
                argument.attrib["name"],
                named.get(argument.attrib["type"]) or Type("", argument.attrib["type"].removeprefix("xs:")),
                argument.get("minOccurs") != "0",
            )
            for argument in arguments
        )
        faults[name] = frozenset(fault.attrib["name"] for fault in operation.findall(f"{WSDL}fault"))
    return Contract(operations, faults, etree.XMLSchema(etree.fromstring(etree.tostring(schema))))


def _type(simple: etree._Element) -> Type:
    restriction = simple.find(f"{XS}restriction")
    assert restriction is not None

    def facet(name: str) -> str | None:
        found = restriction.find(f"{XS}{name}")
        return None if found is None else found.attrib["value"]

    return Type(
        simple.attrib["name"],
        restriction.attrib["base"].removeprefix("xs:"),
        facet("pattern"),
        int(facet("minLength") or 0),
        int(found) if (found := facet("maxLength")) else None,
        int(facet("minInclusive") or -(2**63)),
        int(facet("maxInclusive") or 2**63 - 1),
        tuple(value.attrib["value"] for value in restriction.findall(f"{XS}enumeration")),
    )


def value(chance: random.Random, argument: Argument) -> str:
    """The text of a value that fits an argument."""
    kind = argument.type
    if kind.values:
        return chance.choice(kind.values)
    if kind.base == "long":
        return _number(chance, kind)
    if kind.base == "dateTime":
        return _instant(chance)
    if kind.base == "base64Binary":
        return _base64(chance)
    if kind.pattern is None:
        return _text(chance, kind)
    if kind.name == "sha256" and chance.random() < 0.5:
        return hashlib.sha256(chance.choice(PAYLOADS)).hexdigest()
    known = {"device_name": DEVICES, "calibration_type": TYPES}.get(kind.name)
    if known and chance.random() < 0.7:
        name = chance.choice(known)
        return chance.choice((name, name, name.lower(), name.upper(), name.swapcase()))
    return pattern(kind.pattern)(chance)


def _number(chance: random.Random, kind: Type) -> str:
    shape = chance.random()
    if shape < 0.7:
        number = chance.randint(max(kind.min_inclusive, 1), NUMBERS)
    elif shape < 0.8:
        number = chance.choice((kind.min_inclusive, kind.max_inclusive))
    else:
        number = chance.randint(kind.min_inclusive, kind.max_inclusive) >> chance.randint(0, 63)
        number = max(number, kind.min_inclusive)
    text = str(number)
    if chance.random() < 0.1 and number >= 0:
        text = chance.choice(("+", "0", "000", " ", "\n\t")) + text
    return text + chance.choice(("", "", "", "", " "))


def _instant(chance: random.Random) -> str:
    shape = chance.random()
    if shape < 0.6:
        moment = chance.choice(MOMENTS) + timedelta(microseconds=chance.choice((-1, 0, 0, 0, 1)))
    elif shape < 0.65:
        moment = chance.choice((datetime(1, 1, 2), datetime(9999, 12, 30, 23, 59, 59, 999999), datetime(2016, 2, 29)))
    else:
        moment = datetime(1, 1, 2) + timedelta(microseconds=chance.randrange(3652057 * 86_400_000_000))
    offset = chance.choice(("Z", "Z", "Z", "", "+01:00", "-14:00", "+14:00", "-00:30"))
    if offset[1:]:
        minutes = int(offset[1:3]) * 60 + int(offset[4:])
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))
    text = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}"
    if moment.microsecond or chance.random() < 0.5:
        text += f".{moment.microsecond:06}" + chance.choice(("", "", "000"))
    return text + offset + chance.choice(("", "", "", "\n"))


def _base64(chance: random.Random) -> str:
    shape = chance.random()
    if shape < 0.7:
        data = chance.choice(PAYLOADS)
    elif shape < 0.8:
        data = b""
    else:
        data = chance.randbytes(chance.choice((1, 2, 3, 10, 100, 1000)))
    text = base64.b64encode(data).decode("ascii")
    if chance.random() < 0.2:
        width = chance.choice((4, 60, 76))
        text = chance.choice(("\n", "\r\n", " ")).join(text[at : at + width] for at in range(0, len(text), width))
    return text


# Ranges of characters that XML can hold.
_CHARACTERS = (
    (0x20, 0x7E),
    (0x20, 0x7E),
    (0x20, 0x7E),
    (0x09, 0x0A),
    (0x0D, 0x0D),
    (0x7F, 0xFF),
    (0x300, 0x36F),
    (0x400, 0x4FF),
    (0x2000, 0x206F),
    (0x3040, 0x9FFF),
    (0xE000, 0xFFFD),
    (0x10000, 0x10FFFF),
)


def _text(chance: random.Random, kind: Type) -> str:
    longest = 4096 if kind.max_length is None else kind.max_length
    shape = chance.random()
    if shape < 0.1:
        length = chance.choice((kind.min_length, longest))
        return chance.choice("a é\U0001f600") * length
    length = max(kind.min_length, chance.choice((0, 1, 5, 20, 60)))
    return "".join(chr(chance.randint(*chance.choice(_CHARACTERS))) for _ in range(length))


Generator = Callable[[random.Random], str]


@cache
def pattern(text: str) -> Generator:
    """A generator of texts that match a pattern of XML Schema: of characters, classes, groups, and quantifiers."""
    made, rest = _alternatives(text)
    if rest:
        raise ValueError(f"what is {rest!r} in {text!r}?")
    return made


def _alternatives(text: str) -> tuple[Generator, str]:
    branches = []
    while True:
        branch, text = _sequence(text)
        branches.append(branch)
        if not text.startswith("|"):
            return lambda chance: chance.choice(branches)(chance), text
        text = text[1:]


def _sequence(text: str) -> tuple[Generator, str]:
    parts: list[tuple[Generator, int, int]] = []
    while text and text[0] not in "|)":
        part, text = _atom(text)
        least, most, text = _quantifier(text)
        parts.append((part, least, most))

    def make(chance: random.Random) -> str:
        return "".join(
            part(chance)
            for part, least, most in parts
            for _ in range(least if least == most else _times(chance, least, most))
        )

    return make, text


def _times(chance: random.Random, least: int, most: int) -> int:
    return chance.choice((least, most, chance.randint(least, most), chance.randint(least, min(most, least + 5))))


def _atom(text: str) -> tuple[Generator, str]:
    if text[0] == "(":
        inner, text = _alternatives(text[1:])
        return inner, text[1:]
    if text[0] == "[":
        characters, text = _class(text[1:])
        return lambda chance: chance.choice(characters), text
    if text[0] == "\\":
        return lambda _, character=text[1]: character, text[2:]
    return lambda _, character=text[0]: character, text[1:]


def _class(text: str) -> tuple[str, str]:
    characters = ""
    while text[0] != "]":
        if text[0] == "\\":
            characters, text = characters + text[1], text[2:]
        elif text[1] == "-" and text[2] != "]":
            characters += "".join(map(chr, range(ord(text[0]), ord(text[2]) + 1)))
            text = text[3:]
        else:
            characters, text = characters + text[0], text[1:]
    return characters, text[1:]


def _quantifier(text: str) -> tuple[int, int, str]:
    if text.startswith("{"):
        bounds, _, text = text[1:].partition("}")
        least, comma, most = bounds.partition(",")
        return int(least), int(most or (int(least) + 10 if comma else least)), text
    if text and text[0] in "?*+":
        return *{"?": (0, 1), "*": (0, 10), "+": (1, 10)}[text[0]], text[1:]
    return 1, 1, text
