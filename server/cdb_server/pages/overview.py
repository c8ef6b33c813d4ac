"""The overview: for every device and type the calibration in force now, its age, its author; and when which was."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import instants
from cdb_server.model import CalibrationRecord
from cdb_server.pages import drawing, looking
from cdb_server.pages.drawing import DrawnLane
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site

# Devices and types among which is searched, and of which the page shows no more.
MOST_KEYS, MOST_ROWS = 2_000, 200
# Of a lane: drawn exactly up to so many calibrations, and beyond at so many instants.
MOST, STEPS = 60, 80
MOST_RUNS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A device and type; what is in force, if anything is; and its lane of the timeline."""

    device_name: str
    calibration_type: str
    calibration: CalibrationRecord | None
    lane: DrawnLane


def page(site: Site) -> Page:
    """The site's first page."""

    def answer(request: Request) -> Response:
        sought = request.query_params.get("q", "").strip()
        now = instants.now()
        keys = site.survey.keys(MOST_KEYS + 1)
        known = [*zip(keys[:MOST_KEYS], site.survey.in_force(keys[:MOST_KEYS], now), strict=True)]
        found = [each for each in known if _matches(sought, *each)]
        shown = found[:MOST_ROWS]
        look = looking.looked_at(request.query_params, site.survey.extent(), now)
        lanes = site.survey.lanes([key for key, _ in shown], look.period, MOST, STEPS)
        runs, all_runs = site.survey.runs(look.period, MOST_RUNS, MOST_RUNS)
        return site.render(
            request,
            "overview.html",
            q=sought,
            look=look,
            rows=[
                Row(*key, calibration, drawing.lane(lane, look.period))
                for (key, calibration), lane in zip(shown, lanes, strict=True)
            ],
            found=len(found),
            there_are_more=len(keys) > MOST_KEYS,
            most_keys=MOST_KEYS,
            whole=all(lane.whole for lane in lanes),
            ticks=drawing.ticks(look.period, 6),
            runs=drawing.run_marks(runs, look.period),
            all_runs=all_runs,
            present=drawing.mark(now, look.period, "now"),
        )

    return site.page("/", "page_overview", answer)


def _matches(sought: str, key: tuple[str, str], calibration: CalibrationRecord | None) -> bool:
    """Whether each word that is sought occurs somewhere."""
    told = [*key, *((calibration.author, calibration.comment or "") if calibration else ())]
    where = " ".join(told).casefold()
    return all(word in where for word in sought.casefold().split())
