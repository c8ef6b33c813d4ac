"""From a seed and a number to one input: a request that fits the contract, and then, mostly, one that does not."""

import base64
import hashlib
import random
from dataclasses import dataclass, field

from tests.fuzz import schema, wire
from tests.fuzz.framing import ACTIONS, HTTP, Http
from tests.fuzz.octets import BYTES, FLOODS, PROLOGUES
from tests.fuzz.schema import NAMESPACE, Argument
from tests.fuzz.structure import SOAP, STRUCTURE, Node
from tests.fuzz.texts import TEXT

XSI = "http://www.w3.org/2001/XMLSchema-instance"
PATHS = {"reading": wire.READING, "writing": wire.WRITING}


@dataclass
class Input:
    """One input. `body` is what the service makes of it; `mutations` names what was done to it, in order."""

    seed: int
    number: int
    side: str
    operation: str
    body: bytes
    action: str | None
    mutations: list[str] = field(default_factory=list)
    http: Http | None = None

    @property
    def name(self) -> str:
        """What it is called in a report, and replayed by."""
        return f"--seed {self.seed} --only {self.number}"

    @property
    def around(self) -> Http:
        """The HTTP that it comes in."""
        return self.http or self._usual()

    def _usual(self) -> Http:
        usual = Http(PATHS[self.side], self.body)
        if self.action is not None:
            usual.headers.append(("SOAPAction", self.action))
        return usual


def generate(seed: int, number: int, *, http: bool = False) -> Input:
    """The input of that number. With `http`, what is around the body may be mutated too."""
    chance = random.Random(f"{seed} {number}")
    side = chance.choice(("reading", "writing"))
    contract = schema.contract(side)
    operation = chance.choice(list(contract.operations))
    arguments = contract.operations[operation]
    call = Node(f"t:{operation}", [Node(f"t:{name}", [text]) for name, text in _values(chance, arguments)])
    body = Node("s:Body", [call])
    envelope = Node("s:Envelope", [body], [f'xmlns:s="{SOAP}"', f'xmlns:t="{NAMESPACE}"', f'xmlns:xsi="{XSI}"'])
    made = Input(seed, number, side, operation, b"", f'"{NAMESPACE}#{operation}"')
    if chance.random() < 0.4:
        made.action = chance.choice((None, "", '""', f"{NAMESPACE}#{operation}"))

    count = chance.choice((0, 1, 1, 1, 1, 2, 2, 3, 4))
    kinds = [chance.choice(("structure", "structure", "text", "text", "bytes", "action")) for _ in range(count)]
    # Last, so that the same number gives the same body with and without.
    if http and random.Random(f"http {seed} {number}").random() < 0.3:
        kinds.append("http")
    for tree, mutations in ((envelope, [STRUCTURE] * kinds.count("structure")), (call, [TEXT] * kinds.count("text"))):
        for mutate in map(chance.choice, mutations):
            mutate(chance, tree)
            made.mutations.append(mutate.__name__)
    text = envelope.write()
    if chance.random() < 0.1:
        text = chance.choice(PROLOGUES) + text
    made.body = text.encode("utf-8", "surrogatepass")
    for change in (chance.choice(BYTES) for kind in kinds if kind == "bytes"):
        made.body = change(chance, made.body)
        made.mutations.append(change.__name__)
    if "action" in kinds:
        made.action = chance.choice(ACTIONS)
        made.mutations.append("another_action")
    if chance.random() < 0.0005:
        flood = chance.choice(FLOODS)
        made.body = flood(made.body)
        made.mutations.append(flood.__name__)
    if "http" in kinds:
        made.http = made.around
        for frame in chance.sample(HTTP, chance.choice((1, 1, 2))):
            frame(chance, made.http)
            made.mutations.append(frame.__name__)
    return made


def _values(chance: random.Random, arguments: tuple[Argument, ...]) -> list[tuple[str, str]]:
    values = {
        argument.name: schema.value(chance, argument)
        for argument in arguments
        if argument.required or chance.random() < 0.4
    }
    if "sha256" in values and "data" in values and chance.random() < 0.8:
        values["sha256"] = hashlib.sha256(base64.b64decode(values["data"])).hexdigest()
    return list(values.items())
