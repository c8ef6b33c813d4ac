"""The timeline of one device and type: when which calibration was in force, as near as one likes to look."""

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import instants, model
from cdb_server.errors import CalibrationNotFound
from cdb_server.pages import drawing, looking
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site

# Drawn exactly up to so many, and beyond at so many instants.
MOST, STEPS = 300, 500
# Of calibrations and of runs: the table below the drawing has no more rows, the strip no more marks.
MOST_ROWS, MOST_RUNS = 50, 300


def page(site: Site) -> Page:
    """One for each device and type that there is."""

    def answer(request: Request) -> Response:
        key = (
            model.device_name(request.path_params["device_name"]),
            model.calibration_type(request.path_params["calibration_type"]),
        )
        now = instants.now()
        extent = site.survey.extent(key)
        if extent is None:
            hint = "the overview tells what there is"
            raise CalibrationNotFound(hint, device_name=key[0], calibration_type=key[1])
        look = looking.looked_at(request.query_params, extent, now)
        period = look.period
        lane = site.survey.lanes([key], period, MOST, STEPS)[0]
        runs, all_runs = site.survey.runs(period, MOST_RUNS, STEPS)
        rows = site.survey.beginning(key, period, MOST_ROWS + 1)
        ticks = drawing.ticks(period)
        return site.render(
            request,
            "timeline.html",
            key=key,
            look=look,
            lane=drawing.lane(lane, period),
            whole=lane.whole,
            ticks=ticks,
            parts=looking.parts(period, ticks),
            ways=looking.ways(look),
            runs=drawing.run_marks(runs, period),
            all_runs=all_runs,
            present=drawing.mark(now, period, "now"),
            rows=rows[:MOST_ROWS],
            more=len(rows) > MOST_ROWS,
            after=looking.query(model.Extent(rows[-1].valid_from, period.stop)) if len(rows) > MOST_ROWS else "",
            superseded=frozenset(
                each.id for each in rows if each.valid_until == each.valid_from and not each.withdrawn
            ),
        )

    return site.page("/timeline/{device_name}/{calibration_type}", "page_timeline", answer)
