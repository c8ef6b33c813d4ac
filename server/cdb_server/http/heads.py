"""Heads of requests that were read before: the same bytes again mean the same, and need not be read."""

from typing import NamedTuple

# At most so many, of so many bytes each; the oldest go first.
MOST = 1_000
LONGEST = 4 * 2**10
END = b"\r\n\r\n"


class Head(NamedTuple):
    """What there is to know of a request to the reading service that was answered, apart from its body."""

    soap_action: str
    have: str
    length: int
    closes: bool


class KnownHeads:
    """By their bytes. For one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def of(self, request: bytes) -> tuple[Head, bytes] | None:
        """The head and the body of a whole request; None when it is not whole or its head not known."""
        end = request.find(END) + len(END)
        head = self._known.get(request[:end])
        if head is None or len(request) - end != head.length:
            return None
        return head, request[end:]

    def learn(self, request: bytes, head: Head) -> None:
        """Know the head of a whole request from now on."""
        known = request[: len(request) - head.length]
        # Not where something else came before its head, or the body came in chunks.
        if len(known) > LONGEST or not known.endswith(END) or known.find(END) + len(END) != len(known):
            return
        if known not in self._known and len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[known] = head
