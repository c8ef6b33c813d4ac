"""The short scenario for a client in Python: `python short.py PROGRAM`, whose functions do the steps."""

import os
import runpy
import sys

AT, BEFORE = "2016-03-01T08:00:00.123456Z", "2016-03-01T08:00:00.123455Z"
client = runpy.run_path(sys.argv[1])


def step(name, work):
    try:
        found = work()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    print(f"{name}: {found}".replace("\n", " ")[:400])


def payload(name):
    with open(os.path.join(os.environ["INTEROP_PAYLOADS"], name), "rb") as file:
        return file.read()


def bytes_are_back():
    return client["payload_of"](client["apply"](AT)) == payload("binary")


step("status", client["status"])
client["store"](os.environ["INTEROP_DEVICE"], "short", AT, payload("binary"))
step("bytes", bytes_are_back)
step("before", lambda: client["apply"](BEFORE))
step("devices", lambda: os.environ["INTEROP_DEVICE"] in client["devices"]())
step("no-token", client["without_token"])
if "kept" in client:
    step("kept-wsdl", client["kept"])
