"""What applies to a run, or at a date: all the files, each with its reason, and all of them as one archive."""

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import errors
from cdb_server.pages import archive, asking
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site

# The field of the form that an error is about.
_FIELDS: dict[type[errors.CdbError], str] = {errors.RunNotFound: "run", errors.AsOfNotReached: "as_of"}


def page(site: Site) -> Page:
    """The form and, once something is asked, the answer."""

    def answer(request: Request) -> Response:
        question = asking.asked(request.query_params)
        applied, status = None, 200
        if question.is_asked:
            try:
                applied = question.answer(site.explaining)
            except (errors.RunNotFound, errors.AsOfNotReached) as error:
                question = question.with_wrong(_FIELDS[type(error)], error.message)
                status = 404 if isinstance(error, errors.RunNotFound) else 503
        elif question.wrong:
            status = 400
        return site.render(
            request,
            "applies.html",
            status,
            question=question,
            applied=applied,
            name_of=archive.name_of,
            bytes=sum(each.calibration.size for each in applied.applying) if applied else 0,
        )

    return site.page("/applies", "page_applies", answer)


def archive_page(site: Site) -> Page:
    """The same as a zip archive."""

    def answer(request: Request) -> Response:
        question = asking.asked(request.query_params)
        applied = question.answer(site.explaining)
        files = archive.files(question, applied, site.reader.payload, str(request.base_url))
        largest = max((each.calibration.size for each in applied.applying), default=0)
        return archive.Archive(question.name, files, largest, site.do_payloads)

    return site.page("/applies.zip", "page_archive", answer, shows_payloads=True)
