"""Mutations of structure: elements dropped, doubled, moved, renamed, nested, or with something strange between them.

Each changes the tree of a request, somewhere.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz import schema
from tests.fuzz.schema import NAMESPACE

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"


@dataclass(eq=False)
class Node:
    """An element to be: its children are nodes and texts, and what is `Raw` is written as it is."""

    name: str
    children: "list[Node | str | Raw]" = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)

    def write(self) -> str:
        """The element as text."""
        content = "".join(
            child.write() if isinstance(child, Node) else child if isinstance(child, Raw) else escaped(child)
            for child in self.children
        )
        return f"<{' '.join([self.name, *self.attributes])}>{content}</{self.name}>"

    def copy(self) -> "Node":
        """The same again."""
        children = [child.copy() if isinstance(child, Node) else child for child in self.children]
        return Node(self.name, children, list(self.attributes))


class Raw(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(text: str) -> str:
    """Text as XML writes it; a carriage return must be a reference to survive."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def nodes(root: Node) -> list[tuple[Node, Node]]:
    """Every element below a root, with its parent."""
    found = []
    for child in root.children:
        if isinstance(child, Node):
            found += [(root, child), *nodes(child)]
    return found


def pick(chance: random.Random, root: Node) -> tuple[Node, Node]:
    return chance.choice(nodes(root) or [(root, root)])


def place(chance: random.Random, node: Node) -> int:
    return chance.randint(0, len(node.children))


def drop(chance: random.Random, root: Node) -> None:
    parent, node = pick(chance, root)
    if node is not root:
        parent.children.remove(node)


def duplicate(chance: random.Random, root: Node) -> None:
    parent, node = pick(chance, root)
    parent.children.insert(place(chance, parent), node.copy())


def swap(chance: random.Random, root: Node) -> None:
    parent, _ = pick(chance, root)
    chance.shuffle(parent.children)


def rename(chance: random.Random, root: Node) -> None:
    _, node = pick(chance, root)
    prefix, _, local = node.name.rpartition(":")
    others = [name for side in schema.FILES for name in schema.contract(side).operations]
    others += [
        "device_name",
        "calibration_type",
        "as_of",
        "Fault",
        "Body",
        "Header",
        "x",
        "é",
        local.upper(),
        f"{local}s",
    ]
    node.name = f"{prefix}:{chance.choice(others)}" if prefix else chance.choice(others)


def nest(chance: random.Random, root: Node) -> None:
    _, node = pick(chance, root)
    depth = chance.choice((1, 1, 2, 10, 300))
    start, end = Raw(f"<{node.name}>" * depth), Raw(f"</{node.name}>" * depth)
    node.children = [start, *node.children, end]


def unnest(chance: random.Random, root: Node) -> None:
    parent, node = pick(chance, root)
    if node is not root:
        at = parent.children.index(node)
        parent.children[at : at + 1] = node.children


def move(chance: random.Random, root: Node) -> None:
    parent, node = pick(chance, root)
    if node is root:
        return
    parent.children.remove(node)
    _, other = pick(chance, root)
    other.children.insert(place(chance, other), node)


def another_namespace(chance: random.Random, root: Node) -> None:
    _, node = pick(chance, root)
    local = node.name.rpartition(":")[2]
    node.name = chance.choice((local, f"s:{local}", f"t:{local}", f"xsi:{local}", f"u:{local}"))
    if chance.random() < 0.5:
        node.attributes.append(
            chance.choice(('xmlns="urn:other"', f'xmlns="{NAMESPACE}"', 'xmlns:u="urn:u"', 'xmlns=""'))
        )


ATTRIBUTES = (
    'xsi:nil="true"', 'xsi:nil="false"', 'xsi:nil="1"', 'xsi:nil="x"', 'xsi:type="t:id"', 'xsi:type="t:instant"',
    'xsi:type="t:device_name"', 'xsi:type="xs:string"', 'xsi:type=":"', 'xsi:schemaLocation="a b"',
    'xsi:noNamespaceSchemaLocation="a"', 'xsi:other="1"', 'href="#a"', 'id="a"', 'a="b"', 't:a="b"', 'u:a="b"',
    's:mustUnderstand="1"', 's:mustUnderstand="0"', 's:actor=""', 's:encodingStyle="x"', 'xml:lang="en"',
    'xml:space="preserve"', 'xml:base="http://127.0.0.1:9/"', 'xmlns:v="urn:v"', 'xmlns:s="urn:other"', 'a=""',
    'xmlns:xs="http://www.w3.org/2001/XMLSchema" xsi:type="xs:dateTime"', 'a="&lt;&#10;"', "a='\"'",
)  # fmt: skip


def attributes(chance: random.Random, root: Node) -> None:
    _, node = pick(chance, root)
    node.attributes += chance.sample(ATTRIBUTES, chance.choice((1, 1, 1, 2, 3)))


PIECES = (
    "<!-- a comment -->", "<!---->", "<![CDATA[]]>", "<![CDATA[<a>]]>", "<?a b?>", "<?xml version='1.0'?>", "&amp;",
    "&a;", "&#65;", "&#x0;", "&#xD800;", "words", "  \n", "\t", "<x/>", "<t:x/>", "<s:Fault/>", "<s:Body/>", "]]>",
    '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///dev/null"/>', "<t:get_status/>",
    '<!DOCTYPE a [<!ENTITY a "b">]>',
)  # fmt: skip


def insert(chance: random.Random, root: Node) -> None:
    _, node = pick(chance, root)
    node.children.insert(place(chance, node), Raw(chance.choice(PIECES)))


HEADERS = (
    "<t:x/>", "<x>1</x>", '<t:x s:mustUnderstand="1"/>', '<t:x s:mustUnderstand="0"/>',
    '<t:x s:mustUnderstand="true"/>', '<t:x s:mustUnderstand="1" s:actor="urn:x"/>',
    '<t:x s:mustUnderstand="1" s:actor=""/>', "words", "<?a b?>", "", "<t:get_status/>", '<t:x id="a">TOF1</t:x>',
    "<s:Body/>", '<t:x s:mustUnderstand="x"/>',
)  # fmt: skip


def header(chance: random.Random, root: Node) -> None:
    blocks = chance.sample(HEADERS, chance.choice((1, 1, 2)))
    root.children.insert(chance.choice((0, 0, 0, 1)), Node("s:Header", [Raw("".join(blocks))]))


def another_body(chance: random.Random, root: Node) -> None:
    root.children.insert(place(chance, root), Node("s:Body", [Raw(chance.choice(("", "<t:get_status/>", "words")))]))


def version(chance: random.Random, root: Node) -> None:
    root.attributes[0] = chance.choice(
        ('xmlns:s="http://www.w3.org/2003/05/soap-envelope"', 'xmlns:s="urn:x"', f'xmlns:s="{SOAP.upper()}"', "")
    )


STRUCTURE: list[Callable[[random.Random, Node], None]] = [
    drop, duplicate, swap, rename, nest, unnest, move, another_namespace, attributes, attributes, insert, insert,
    header, another_body, version,
]  # fmt: skip
