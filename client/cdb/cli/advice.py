"""What to type next after an error: its own words are for programs in any language, not for who sits at a shell."""

from cdb import _exceptions as errors
from cdb._instants import say


def after(error: errors.CdbError, command: str | None) -> str | None:
    """A line for who sees an error of a command at a shell; None where its own words say all."""
    if isinstance(error, errors.CalibrationNotFound):
        return _where_nothing_applies(error, command)
    if isinstance(error, errors.RunNotFound):
        return (
            f"by date: --date in place of --run; to register it: cdb run add {error.run_number} --start TIME; "
            "which there are: cdb log"
        )
    if getattr(error, "argument", None) == "run_number" and error.message.startswith("run_number 0 "):
        return "by date: --date in place of --run; the current one: neither of them"
    if isinstance(error, errors.AsOfNotReached):
        return f"the latest that can be asked now, {say(error.complete_until)}: --as-of now"
    # What a server said, or TLS, has its own advice.
    if isinstance(error, errors.NotAuthorised) and error.message.startswith("writing needs user and token"):
        return "they are given by --user and --token too; the server's operator makes them"
    if command == "copy" and "?wsdl is not a service" in error.message:
        return (
            "--from takes the address of one service, too: http://…/cdb/calibration?wsdl or http://…/cdb/cabling?wsdl"
        )
    if "is not a service of a calibration database" in error.message or getattr(error, "argument", None) == "servers":
        return "--server, or CDB_SERVER, names the server by its base URL alone, like http://localhost:8080"
    if isinstance(error, errors.TooLarge):
        return "a list is made shorter by a shorter period; the largest file that is taken is the operator's to set"
    return None


def _where_nothing_applies(error: errors.CalibrationNotFound, command: str | None) -> str:
    if error.id is not None:
        return "which ids there are: cdb log, or those in force at a time: cdb ids TIME"
    if command == "why":
        return "what there is: cdb devices"
    asked = ""
    if error.run_number is not None:
        asked = f" --run {error.run_number}"
    elif error.date is not None:
        asked = f" --date '{say(error.date)}'"
    device = f"'{error.device_name}'" if " " in str(error.device_name) else error.device_name
    kind = f"'{error.calibration_type}'" if " " in str(error.calibration_type) else error.calibration_type
    return f"what there is: cdb devices; what would apply when: cdb why {device} {kind}{asked}"
