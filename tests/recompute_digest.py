"""The digest of a journal, recomputed from what get_journal answers, with Python's own library alone.

    python tests/recompute_digest.py http://localhost:8080

prints the last serial and its digest, as `cdb status` does, or the first entry whose digest is another than computed.
"""

import hashlib
import sys
import urllib.request
from xml.etree import ElementTree

NAMESPACE = "{urn:mice:cdb:2}"
FIELDS = {
    "calibration": ("device_name", "calibration_type", "valid_from", "comment", "size", "sha256"),
    "withdrawal": ("calibration_id", "reason"),
    "run": ("run_number", "start_time", "stop_time"),
}
QUESTION = """<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><get_journal xmlns="urn:mice:cdb:2">
<after_serial>{}</after_serial><limit>1000</limit></get_journal></Body></Envelope>"""

serial, digest = "0", "0" * 64
while True:
    question = urllib.request.Request(
        f"{sys.argv[1]}/cdb/v2/calibration", QUESTION.format(serial).encode(), {"Content-Type": "text/xml"}
    )
    with urllib.request.urlopen(question, timeout=60) as answer:
        found = list(ElementTree.parse(answer).iter(f"{NAMESPACE}entry"))
    if not found:
        break
    for element in found:
        entry = {field.tag.removeprefix(NAMESPACE): field.text or "" for field in element}
        names = ("serial", "kind", "created", "author", *FIELDS[entry["kind"]])
        values = [entry.get(name, "").encode() for name in names]
        netstrings = b"".join(b"%d:%b," % (len(value), value) for value in values)
        serial, digest = entry["serial"], hashlib.sha256(digest.encode() + netstrings).hexdigest()
        if digest != entry["digest"]:
            sys.exit(f"entry {serial} has the digest {entry['digest']}, and {digest} was computed")
print(serial, digest)
