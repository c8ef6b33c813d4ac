"""Parses and checks argument values: names, numbers, times, SHA-256, comments, base64. Their limits are here."""

import re
from contextlib import suppress
from datetime import datetime, timedelta

import pybase64

from cdb_server import errors, instants
from cdb_server.errors import InvalidArgument, TooLarge
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal

# Rule 2: "Device: [A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}, no space at the end. Type: the same, beginning with a letter."
DEVICE_NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9 _.+\-]{0,62}[A-Za-z0-9_.+\-])?"

CALIBRATION_TYPE_PATTERN = r"[A-Za-z]([A-Za-z0-9 _.+\-]{0,62}[A-Za-z0-9_.+\-])?"

SHA256_PATTERN = r"[0-9A-Fa-f]{64}"

_DEVICE_NAME, _CALIBRATION_TYPE, _SHA256 = map(
    re.compile, (DEVICE_NAME_PATTERN, CALIBRATION_TYPE_PATTERN, SHA256_PATTERN)
)

MAX_TEXT_CHARACTERS = 4096

MAX_NUMBER = 2**63 - 1

# Characters that XML 1.0 cannot carry: text holding one could be stored and never be read back.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_entry(entry: Entry) -> None:
    """Raise InvalidArgument for an entry that no master may accept.

    Every entry passes here before it enters a journal: those that a master accepts, and those that a mirror repeats.
    The repository checks what depends on other entries, such as that a withdrawn calibration exists.
    """
    check_number("serial", entry.serial)
    if not entry.author:
        raise InvalidArgument("author", "the author is missing")
    _checked_text("author", entry.author)
    match entry.content:
        case NewCalibration() as content:
            _check_normalised("device_name", content.device_name, normalised_device_name(content.device_name))
            _check_normalised(
                "calibration_type", content.calibration_type, normalised_calibration_type(content.calibration_type)
            )
            _check_normalised("comment", content.comment, checked_comment(content.comment))
            _check_normalised("sha256", content.sha256, normalised_sha256(content.sha256))
            if not 0 <= content.size <= MAX_NUMBER:
                raise InvalidArgument("size", f"size is {content.size}: it must be a number of bytes")
        case Withdrawal() as content:
            check_number("calibration_id", content.calibration_id)
            checked_reason(content.reason)
        case RunTimes() as content:
            check_number("run_number", content.run_number)
            check_period(content.start_time, content.stop_time)


def normalised_device_name(text: str) -> str:
    """A device's name as stored: upper case. Raises InvalidArgument for a name that rule 2 does not admit."""
    if not _DEVICE_NAME.fullmatch(text):
        raise InvalidArgument(
            "device_name",
            f"{text[:80]!r} cannot name a device: use 1 to 64 letters, digits, spaces and _ . + -, "
            "beginning with a letter or digit and not ending with a space",
        )
    return text.upper()


def normalised_calibration_type(text: str) -> str:
    """A calibration type as stored: lower case. Raises InvalidArgument for one that rule 2 does not admit."""
    if not _CALIBRATION_TYPE.fullmatch(text):
        raise InvalidArgument(
            "calibration_type",
            f"{text[:80]!r} cannot name a calibration type: use 1 to 64 letters, digits, spaces and _ . + -, "
            "beginning with a letter and not ending with a space",
        )
    return text.lower()


def check_number(argument: str, value: int) -> int:
    """A run number or id: from 1, in 63 bits. Raises InvalidArgument."""
    if not 1 <= value <= MAX_NUMBER:
        raise InvalidArgument(argument, f"{argument} must be a whole number from 1 to {MAX_NUMBER}")
    return value


def check_period(start_time: datetime, stop_time: datetime | None) -> tuple[datetime, datetime]:
    """The first and last instant of a period; without stop_time, start_time alone. Raises InvalidArgument (rule 6)."""
    if stop_time is None:
        return start_time, start_time
    if stop_time < start_time:
        raise InvalidArgument(
            "stop_time",
            f"stop_time {instants.format_instant(stop_time)} lies before start_time "
            f"{instants.format_instant(start_time)}: "
            "exchange them, or leave stop_time out",
        )
    return start_time, stop_time


def checked_comment(text: str | None) -> str | None:
    """A comment as stored: None when empty. Raises InvalidArgument when too long or not fit for XML."""
    return _checked_text("comment", text) if text else None


def checked_reason(text: str) -> str:
    """The reason of a withdrawal. Raises InvalidArgument when blank, too long or not fit for XML."""
    if not text.strip():
        raise InvalidArgument("reason", "the reason is blank: say why the calibration is withdrawn")
    return _checked_text("reason", text)


def normalised_sha256(text: str) -> str:
    """A sha256 in lower case. Raises InvalidArgument when it is not 64 hexadecimal digits."""
    if not _SHA256.fullmatch(text):
        raise InvalidArgument("sha256", f"{text[:80]!r} is not a SHA-256 of 64 hexadecimal digits")
    return text.lower()


def _check_normalised(argument: str, text: str | None, kept: str | None) -> None:
    if text != kept:
        raise InvalidArgument(argument, f"{argument} is {str(text)[:80]!r}, and is kept as {str(kept)[:80]!r}")


def _checked_text(argument: str, text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidArgument(
            argument, f"the {argument} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are kept"
        )
    if _NOT_XML.search(text):
        raise InvalidArgument(argument, f"the {argument} holds a control character that XML cannot carry")
    return text


def check_payload_size(size: int, max_payload: int) -> None:
    """Refuse a payload of more bytes than are taken. Raises TooLarge."""
    if size > max_payload:
        raise TooLarge(max_payload, f"the payload has {size} bytes; this server takes at most {max_payload}")


BASE64_FORM = "base64: the bytes in A-Z a-z 0-9 + /, padded with =; line breaks may stand between"

# XML's white space.
_SPACES = (b" ", b"\t", b"\r", b"\n")


def parse_instant(argument: str, text: str) -> datetime:
    """An instant. Raises InvalidArgument for one that does not exist, such as the 30th of February."""
    try:
        return instants.parse(text)
    except ValueError as error:
        raise InvalidArgument(argument, f"{argument}: {error}") from None


def parse_whole_number(argument: str, text: str) -> int:
    """The number that an `xs:long` spells: with more zeros before it than Python cares to read, perhaps."""
    return int(text.strip(" \t\r\n+").lstrip("0") or "0")


def decode_payload(argument: str, text: bytes, max_bytes: int) -> bytes:
    """The at most so many bytes that base64 stands for. Raises InvalidArgument for other text, and TooLarge."""
    # Line breaks within base64 are legal.
    if any(space in text for space in _SPACES):
        text = text.translate(None, b"".join(_SPACES))
    # Before it is decoded: what is far too large need not be.
    check_payload_size(len(text) // 4 * 3 - text[-2:].count(b"="), max_bytes)
    with suppress(ValueError):
        decoded = pybase64.b64decode(text)
        # Decoders pass over much that is not base64, each another part of it; what comes back does not.
        if pybase64.b64encode(decoded) == text:
            return decoded
    raise InvalidArgument(argument, f"{argument} is not accepted: it must be {BASE64_FORM}")


def query_instant(argument: str, text: str) -> datetime:
    try:
        return instants.parse(text)
    except ValueError as error:
        hint = "; an offset's + is written %2B in an address, where + itself is a space" if _has_lost_plus(text) else ""
        raise errors.InvalidArgument(argument, f"{argument}: {error}{hint}") from None


def _has_lost_plus(text: str) -> bool:
    time, _, offset = text.rpartition(" ")
    with suppress(ValueError):
        instants.parse(f"{time}+{offset}")
        return True
    return False


def query_number(argument: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_NUMBER)):
        raise errors.InvalidArgument(argument, f"{argument} must be a whole number from 1 to {MAX_NUMBER}")
    return int(text)


def legacy_instant(argument: str, text: str) -> datetime:
    try:
        return instants.parse(text.strip(" \t\r\n").replace(" ", "T", 1))
    except ValueError:
        problem = f"{argument} {text[:40]!r} is no time like 2016-03-01 08:00:00.0 in UTC, to the microsecond at most"
        raise InvalidArgument(argument, problem) from None


def legacy_number(argument: str, text: str) -> int:
    digits = text.strip(" \t\r\n")
    if not digits.isascii() or not digits.isdigit() or len(digits) > len(str(MAX_NUMBER)):
        problem = f"{argument} {text[:40]!r} is not a whole number from 1 to {MAX_NUMBER}"
        raise InvalidArgument(argument, problem)
    return int(digits)


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

_MINUTE = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2})(Z|[+-]\d{2}:?\d{2})?", re.ASCII)


def parse_typed_instant(text: str) -> datetime:
    """`2016-03-01`, `2016-03-01 08:00`, `2016-03-01 08:00:00.5`, `2016-03-01T08:00:00Z`: in UTC, unless it says
    otherwise."""
    spelled = re.sub(r"\s*UTC$", "Z", text.strip(), flags=re.IGNORECASE)
    spelled = re.sub(r"^(\S{10})\s+", r"\1T", spelled)
    if _DAY.fullmatch(spelled):
        spelled += "T00:00:00"
    elif minute := _MINUTE.fullmatch(spelled):
        spelled = f"{minute[1]}:00{minute[2] or ''}"
    try:
        return instants.parse(spelled)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time: write it as 2016-03-01 or 2016-03-01 08:00:00, in UTC") from None


def parse_typed_number(text: str) -> int:
    """A run number or an id."""
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or not 1 <= int(digits[:20]) <= MAX_NUMBER:
        raise ValueError(f"{text[:40]!r} is no number: write digits alone, such as 7662")
    return int(digits)


def parse_typed_period(start: str, stop: str) -> tuple[datetime, datetime]:
    """Two times, the second one later."""
    first, last = parse_typed_instant(start), parse_typed_instant(stop)
    if last - first < timedelta(milliseconds=1):
        raise ValueError("the period ends before it begins: exchange its ends")
    return first, last


def typed_number(text: str, argument: str) -> int:
    """An id, or where to begin. Raises InvalidArgument."""
    try:
        return parse_typed_number(text)
    except ValueError as error:
        raise InvalidArgument(argument, str(error)) from None


def typed_instant(text: str, argument: str) -> datetime:
    """A time. Raises InvalidArgument."""
    try:
        return parse_typed_instant(text)
    except ValueError as error:
        raise InvalidArgument(argument, str(error)) from None
