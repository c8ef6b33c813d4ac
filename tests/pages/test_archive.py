"""The names of an archive's files: safe wherever it is unpacked, whatever a database says that was changed."""

import re
from pathlib import PurePosixPath

import pytest

from cdb_server import instants
from cdb_server.model import CalibrationRecord
from cdb_server.pages.views.applies import payload_file_name

THEN = instants.parse("2016-03-01T00:00:00Z")


def named(device_name: str, calibration_type: str, id: int = 12) -> str:
    """The name of the file of a calibration."""
    return payload_file_name(
        CalibrationRecord(
            id, device_name, calibration_type, THEN, None, THEN, "alice", None, False, None, None, 1, "0" * 64
        )
    )


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "..",
        "a\\b",
        "C:",
        "a\nb",
        "a\0b",
        "\u202etxt.exe",
        "A" * 100_000,
        ".bashrc",
        "-rf",
        "",
    ],
)
def test_a_file_stays_in_the_folder_of_its_archive(name: str) -> None:
    """A plain name of characters that no shell and no file system minds, and not too long."""
    for found in (named(name, "t0"), named("TOF1", name), named(name, name)):
        assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,160}[.]dat", found)
        assert PurePosixPath(found).name == found
    assert named(name, "t0", 1) != named(name, "t0", 2)


def test_a_name_of_rule_2_is_kept() -> None:
    """But for spaces."""
    assert named("KL A", "gain.v2", 6) == "KL_A_gain.v2_6.dat"
