"""View: upload a file: form, preview of what changes, confirmation, store.

Nothing is kept here between these steps, for the next one may come to another process. A file of up to CARRIED bytes
goes with the preview to the browser and comes back from there; a larger one is chosen again, and must be the same one
by its SHA-256. What else the preview rests on comes back too: where it no longer holds, there is a new preview first.
"""

import base64
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import arguments, instants, model
from cdb_server.errors import CdbError, Integrity, InvalidArgument, MalformedRequest, TooLarge
from cdb_server.model import Preview
from cdb_server.pages.auth import Form, SignedForm, WriteGuard, see_other
from cdb_server.pages.context import Page
from cdb_server.pages.payload import display
from cdb_server.pages.payload.detect import detect
from cdb_server.pages.views.calibration import load_content
from cdb_server.repository.writer import Upload

MAX_CARRIED_BYTES = 2**20

# A list to choose from that is longer is none.
MAX_SUGGESTED_NAMES = 1_000

MISSING_TEXTS = {
    "device_name": "Name the device.",
    "calibration_type": "Name the calibration type.",
    "valid_from": "Say from when it applies.",
    "file": "Choose the file.",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What was filled in, as it was; `data` is None where no file came. `previewed` is the SHA-256 of what was."""

    device_name: str = ""
    calibration_type: str = ""
    valid_from: str = ""
    comment: str = ""
    empty: bool = False
    file: str = ""
    data: bytes | None = None
    previewed: str = ""
    seen: str = ""

    @classmethod
    def of(cls, form: Form) -> "Draft":
        """What a form says: the file that was chosen in it or, without one, that which it carries."""
        name, data = form.text("file_name"), _carried_data(form)
        if "file" in form.files:
            name, data = form.files["file"].name, form.files["file"].data
        return cls(
            form.text("device_name"),
            form.text("calibration_type"),
            form.text("valid_from"),
            form.text("comment"),
            form.text("empty") == "yes",
            name,
            data,
            form.text("previewed"),
            form.text("seen"),
        )

    @property
    def carried(self) -> str:
        """The file in base64, where it goes with the page."""
        return (
            ""
            if self.data is None or len(self.data) > MAX_CARRIED_BYTES
            else base64.b64encode(self.data).decode("ascii")
        )

    def upload(self, max_payload: int) -> Upload:
        """What is to be stored. Raises InvalidArgument, TooLarge and Integrity."""
        for field, message in MISSING_TEXTS.items():
            if not (self.data is not None if field == "file" else getattr(self, field)):
                raise InvalidArgument(field, message)
        data = self.data or b""
        sha256 = self.previewed or None
        if not data:
            # "Empty data is accepted only with its sha256": here, only when somebody says so.
            sha256 = model.sha256_of(b"") if self.empty else None
        return Upload.validated(
            self.device_name,
            self.calibration_type,
            arguments.typed_instant(self.valid_from, "valid_from"),
            data,
            sha256,
            self.comment or None,
            max_payload=max_payload,
        )


def upload_page(desk: WriteGuard) -> Page:
    """The page of uploads: the form, the preview, and the storing."""
    site = desk.site

    def form(request: Request, author: str, draft: Draft, problem: CdbError | None = None) -> Response:
        devices = site.reader.devices()[:MAX_SUGGESTED_NAMES]
        types = sorted({each for device in devices for each in device.calibration_type})[:MAX_SUGGESTED_NAMES]
        field = _field(problem)
        return site.render(
            request,
            "upload.html",
            413 if isinstance(problem, TooLarge) else 400 if problem else 200,
            author=author,
            draft=draft,
            devices=[device.device_name for device in devices],
            types=types,
            field=field,
            problem=_problem_text(problem, draft),
            ask_empty=draft.data == b"",
            max_payload=desk.max_payload,
        )

    def shown(request: Request, author: str) -> Response:
        query = request.query_params
        return form(request, author, Draft(query.get("device_name", ""), query.get("calibration_type", "")))

    def previewed(request: Request, author: str, draft: Draft, upload: Upload, changed: bool = False) -> Response:
        told = desk.writer.preview_calibration(upload)
        before = told.takes_over_from
        content = detect(upload.data)
        names = ("" if before is None else str(before.id), "this file")
        found = None
        if before is not None and told.stored_id is None:
            same = before.sha256 == upload.content.sha256
            found = display.display_differences(load_content(site, before), content, same, names)
        return site.render(
            request,
            "preview.html",
            author=author,
            # What is stored is what was previewed: the names and the time as they were read.
            draft=replace(
                draft,
                device_name=upload.content.device_name,
                calibration_type=upload.content.calibration_type,
                valid_from=instants.format_instant(upload.content.valid_from),
                previewed=upload.content.sha256,
                seen=_preview_summary(told),
            ),
            upload=upload.content,
            told=told,
            changed=changed,
            meant=_similar_names(site.reader.devices(), upload, told),
            names=names,
            found=found,
            shown=display.display_payload(content, 0, None, ("", "")) if found is None else None,
        )

    def taken(request: Request, signed: SignedForm) -> Response:
        step = signed.form.text("step")
        draft = Draft.of(signed.form)
        try:
            if step == "change":
                return form(request, signed.author, replace(draft, previewed="", seen=""))
            if step == "preview":
                draft = replace(draft, previewed="", seen="")
            upload = draft.upload(desk.max_payload)
        except (InvalidArgument, TooLarge, Integrity) as error:
            return form(request, signed.author, draft, error)
        if step != "store":
            return previewed(request, signed.author, draft, upload)
        if draft.seen != _preview_summary(desk.writer.preview_calibration(upload)):
            return previewed(request, signed.author, draft, upload, changed=True)
        stored = desk.writer.add_calibration(upload, signed.author)
        return see_other(request, f"calibrations/{stored.id}#stored")

    return desk.page("/upload", "page_upload", shown, taken, desk.max_body)


def _carried_data(form: Form) -> bytes | None:
    if "carried" not in form.texts:
        return None
    try:
        return base64.b64decode(form.texts["carried"], validate=True)
    except ValueError:
        raise MalformedRequest("the file did not come back as it was sent: choose it again") from None


def _preview_summary(told: Preview) -> str:
    """What a preview said, in short."""
    before = told.takes_over_from
    until = "" if told.valid_until is None else instants.format_instant(told.valid_until)
    return f"{told.stored_id} {before.id if before else None} {until} {told.run_count}"


def _field(problem: CdbError | None) -> str:
    if isinstance(problem, InvalidArgument):
        return {"data": "file"}.get(problem.argument, problem.argument)
    return "file" if problem else ""


def _problem_text(problem: CdbError | None, draft: Draft) -> str:
    if problem is None:
        return ""
    if isinstance(problem, InvalidArgument) and problem.argument == "data":
        return f"{draft.file} is empty: if that is meant, say so below."
    if isinstance(problem, Integrity):
        return f"{draft.file} is not the file of the preview: choose that one, or preview this one."
    return problem.message


def _similar_names(devices: Sequence[model.Device], upload: Upload, told: Preview) -> Sequence[str]:
    """Names that are there already, and much like a new one."""
    content = upload.content
    if told.device_is_new:
        known = [device.device_name for device in devices]
        return difflib.get_close_matches(content.device_name, known[:MAX_SUGGESTED_NAMES], n=3)
    if told.calibration_type_is_new:
        types = [
            each for device in devices if device.device_name == content.device_name for each in device.calibration_type
        ]
        return difflib.get_close_matches(content.calibration_type, types[:MAX_SUGGESTED_NAMES], n=3)
    return []
