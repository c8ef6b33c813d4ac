"""Requests in families: one envelope, written in some odd way, with ever other texts in the same places.

Whatever remembers one of a family may take another for it. The texts of arguments stand there as they are, as character
references, in CDATA sections, or parted by comments; and there are others, in places that mean nothing.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cdb_server.soap.wsdl import Argument, Wsdl

NAMESPACE = "urn:mice:cdb:2"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

# Of one family, one after another.
REQUESTS = 10

NUMBERS = ("1", "2", "3", "4", "5", "6", "7", "8", "9")
POOLS = {
    "device_name": ("TOF1", "tof2", "KL", "TOF9", "5", "T"),
    "calibration_type": ("t0", "TW", "t0", "gain", "T", "t"),
    "id": NUMBERS,
    "run_number": NUMBERS,
    "entry_limit": NUMBERS,
    "serial": ("0", *NUMBERS),
    "instant": (
        "2016-03-02T00:00:00Z",
        "2016-03-02T00:00:00",
        "2016-03-04T12:00:00.5+01:00",
        "2016-03-06T00:00:00.000000Z",
        "2016-02-30T00:00:00Z",
        "2016-03-08T00:00:00.1234567Z",
    ),
    # Of the payloads `1` to `3`, and of none.
    "sha256": (
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "D4735E3A265E16EEE03F59718B9B5D03019C07D8B6C51F90DA3A666EEC13AB35",
        "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
        "0" * 64,
    ),
}
ODD = ("", " ", "0", "05", "+5", "-5", "5 ", " 5", "5 5", "!", "é", "abc", "9" * 19, "\ufeff", "5]", "=5", "#53;")


def _references(value: str) -> str:
    return "".join(f"&#{ord(letter)};" for letter in value)


def _section(value: str) -> str:
    return f"<![CDATA[{value}]]>"


# How a text is written: what the parser finds in many is the text itself, in the first without another sign of markup.
FAITHFUL = 5
STYLES: tuple[Callable[[str], str], ...] = (
    _references,
    lambda value: "".join(f"&#x{ord(letter):X};" for letter in value),
    lambda value: _references(value[:1]) + value[1:],
    lambda value: value[:-1] + _references(value[-1:]),
    _section,
    lambda value: value[:1] + _section(value[1:]),
    lambda value: _section("") + value,
    lambda value: value[:1] + "<!---->" + value[1:],
    lambda value: f"<!-->{value}</-->{value}",
    lambda value: f"{value}<!-- >{value}</ -->",
    lambda value: f"<?x >{value}</?>{value}",
    lambda value: f"\n {value}\t",
    lambda value: f"&#32;{value}",
    lambda value: f"{value}&gt;",
    lambda value: f"&amp;{value}",
    lambda value: f"&unknown;{value}",
    lambda value: f"{value}\r\n",
    lambda value: f">{value}",
    lambda value: f"{value}>",
    lambda value: f"<x>{value}</x>",
    lambda value: f"<x/>{value}",
)
_ANY_STYLE: tuple[Callable[[str], str], ...] = (str, *STYLES)
# What stands where nothing need stand, {} being a text.
STRAYS = (
    *("{}", "{}", "{}", "{}", "{}", "{}", "{}", " {}\n", "&#53;{}", "<![CDATA[{}]]>", "<![CDATA[>{}</]]>", "<!--{}-->"),
    *("<!-->{}</-->", "<?x {}?>", "<!-- > -->{}", "{}<!-- < -->", "<x>{}</x>", "<x xmlns=''>{}</x>", "<x a='>'>{}</x>"),
    *("<x a='>{}</'/>", "]]{}", ">{}<!---->", "\n", " ", "\r\n", "<!-- -->", "<![CDATA[]]>", "<x/>", "<x a='&lt;'/>"),
    *("&#10;", "\ufeff"),
)
ATTRIBUTES = (
    *('a=">"', "a='>{}</'", 'a="{}"', 'a="&gt;{}&lt;"', "a='\"'", 'xmlns:q="urn:q"', 'xmlns="urn:q"', 'xmlns=""'),
    *('xmlns:t="urn:mice:cdb:2"', 'xmlns:t="urn:other"', 'xmlns:s="urn:other"', f'xmlns:x="{XSI}" x:type="t:id"'),
    *(f'xmlns:x="{XSI}" x:nil="false"', f'xmlns:x="{XSI}" x:type="t:run_number"', 's:mustUnderstand="{}"'),
)
DECLARATIONS = (
    *("<?xml version='1.0' encoding='utf-8'?>", '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'),
    *('<?xml version="1.0"?>', '<?xml version="1.0" encoding="US-ASCII"?>', '<?xml version="1.1"?>', "\n", "<!---->"),
    *('<?xml version="1.0" encoding="ISO-8859-1"?>', '<?xml version="1.0" encoding="utf-7"?>', "<?x >5</?>"),
    *('<?xml version="1.0" encoding="iso-2022-jp"?>', '<!DOCTYPE x [<!ENTITY e "5">]>', "<?xml version='1.0' x='>'?>"),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-7", "latin-1", "utf-32")


@dataclass
class Place:
    """A place for a text; `pool` is what may stand there."""

    pool: tuple[str, ...]
    style: Callable[[str], str] = str


@dataclass(frozen=True)
class Asked:
    """One request, apart from its HTTP."""

    body: bytes
    soap_action: str


class Family:
    """One envelope: the pieces between its places, and these."""

    def __init__(self, contract: Wsdl, chance: random.Random) -> None:
        self._chance = chance
        self._pieces: list[str] = [""]
        self._places: list[Place] = []
        self._of_arguments: list[int] = []
        # Many are odd in few ways, so that the rest of them is taken.
        self._oddness = chance.choice((0.0, 0.05, 0.1, 0.2))
        self._styled = chance.choice((0.0, 0.0, 0.3, 0.8))
        # In some nothing is odd but that the arguments' texts stand elsewhere, too, and only there as they are.
        self._decoys = chance.random() < 0.2
        if self._decoys:
            self._oddness, self._styled = 0.0, 1.0
        self._operation = chance.choice(list(contract.operations))
        self._write(contract.operations[self._operation])
        self._encoding = chance.choice(ENCODINGS) if chance.random() < 0.02 else "utf-8"
        action = f"{NAMESPACE}#{self._operation}"
        self._actions = (
            "",
            "",
            f'"{action}"',
            f'"{action}"',
            action,
            action,
            '""',
            f' "{action}" ',
            f'"{NAMESPACE}#get_run"',
        )

    def requests(self) -> Iterator[Asked]:
        """Some of them: one twice, then ever others, a few texts or all of them exchanged."""
        chance = self._chance
        action = chance.choice(self._actions)
        texts = [chance.choice(place.pool) for place in self._places]
        if self._decoys or chance.random() < 0.5:
            self._repeat_arguments(texts)
        yield Asked(self._body(texts), action)
        for _ in range(REQUESTS - 1):
            yield Asked(self._body(texts), action)
            for at, place in enumerate(self._places):
                if chance.random() < 0.4:
                    texts[at] = chance.choice(place.pool if chance.random() < 0.95 else ODD)
            if chance.random() < 0.2:
                self._repeat_arguments(texts)
            if chance.random() < 0.05:
                action = chance.choice(self._actions)

    def _repeat_arguments(self, texts: list[str]) -> None:
        """Have other places hold what the arguments hold, in their order."""
        given = [texts[at] for at in self._of_arguments]
        others = [at for at in range(len(texts)) if at not in self._of_arguments]
        for at, text in zip(others, given, strict=False):
            texts[at] = text

    def _body(self, texts: list[str]) -> bytes:
        chance = self._chance
        written = [self._pieces[0]]
        for place, text, piece in zip(self._places, texts, self._pieces[1:], strict=True):
            style = place.style
            if chance.random() < 0.03:
                style = chance.choice(_ANY_STYLE)
            written += (style(text), piece)
        return "".join(written).encode(self._encoding, "replace")

    def _write(self, arguments: tuple[Argument, ...]) -> None:
        chance = self._chance
        given = [argument for argument in arguments if argument.required or chance.random() < 0.3]
        pools = [POOLS[argument.type] for argument in given] or [NUMBERS]
        decoys = chance.sample(("h", "Body", "Envelope"), min(3, len(given))) if self._decoys else []
        soap = chance.choice(("s:", "s:", ""))
        ours = chance.choice(("t:", "t:", "" if soap else "t:"))
        if not soap:
            ours = "t:"
        if chance.random() < 0.1:
            self._add("\ufeff")
        if chance.random() < 0.4:
            self._add(
                DECLARATIONS[chance.randrange(3) if chance.random() < 0.7 else chance.randrange(len(DECLARATIONS))]
            )
        declared = f'xmlns{":s" if soap else ""}="{SOAP}" xmlns:t="{NAMESPACE}"'
        self._open(f"{soap}Envelope", declared, pools)
        self._stray(pools)
        if "h" in decoys or chance.random() < 0.3:
            self._open(f"{soap}Header", "", pools)
            self._stray(pools)
            if "h" in decoys or chance.random() < 0.7:
                self._open("h", 'xmlns="urn:h"', pools)
                self._stray(pools)
                if "h" in decoys:
                    self._place(pools[0])
                self._add("</h>")
                self._stray(pools)
            self._add(f"</{soap}Header>")
            self._stray(pools)
        self._open(f"{soap}Body", "", pools)
        self._stray(pools)
        self._open(ours + self._operation, "" if ours else f'xmlns="{NAMESPACE}"', pools)
        self._stray(pools)
        for argument in given:
            self._open(ours + argument.name, "", pools)
            styles = STYLES[:FAITHFUL] if self._decoys else STYLES
            style = chance.choice(styles) if chance.random() < self._styled else str
            self._of_arguments.append(len(self._places))
            self._place(POOLS[argument.type], style)
            self._add(f"</{ours}{argument.name}>")
            self._stray(pools)
        self._add(f"</{ours}{self._operation}>")
        self._stray(pools)
        for around in ("Body", "Envelope"):
            if around in decoys:
                self._place(pools[-1])
            self._add(f"</{soap}{around}>")
            self._stray(pools)

    def _add(self, text: str) -> None:
        self._pieces[-1] += text

    def _place(self, pool: tuple[str, ...], style: Callable[[str], str] = str) -> None:
        self._places.append(Place(pool, style))
        self._pieces.append("")

    def _with_text(self, pattern: str, pools: list[tuple[str, ...]]) -> None:
        before, place, after = pattern.partition("{}")
        self._add(before)
        if place:
            self._place(self._chance.choice(pools))
            self._add(after)

    def _stray(self, pools: list[tuple[str, ...]]) -> None:
        if self._chance.random() < self._oddness:
            self._with_text(self._chance.choice(STRAYS), pools)

    def _open(self, name: str, attributes: str, pools: list[tuple[str, ...]]) -> None:
        self._add(f"<{name}{attributes and ' '}{attributes}")
        if self._chance.random() < self._oddness / 2:
            self._add(" ")
            self._with_text(self._chance.choice(ATTRIBUTES), pools)
        self._add(">")


def families(contract: Wsdl, seed: int, numbers: range) -> Iterator[Family]:
    """Those of such numbers; each is the same whenever it is made."""
    for number in numbers:
        yield Family(contract, random.Random(f"{seed} {number}"))
