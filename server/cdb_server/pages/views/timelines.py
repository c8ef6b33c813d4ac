"""Views: the overview (start page), and the timeline of one device and type."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import arguments, instants, model
from cdb_server.errors import CalibrationNotFound
from cdb_server.model import CalibrationRecord
from cdb_server.pages import timeline_layout
from cdb_server.pages.context import Page, PageContext
from cdb_server.pages.timeline_layout import DrawnLane

# Devices and types among which is searched, and of which the page shows no more.
MAX_OVERVIEW_KEYS, MAX_OVERVIEW_ROWS = 2_000, 200

# Of a lane: drawn exactly up to so many calibrations, and beyond at so many instants.
MAX_OVERVIEW_POINTS, OVERVIEW_STEPS = 60, 80

MAX_OVERVIEW_RUNS = 200


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """A device and type; what is in force, if anything is; and its lane of the timeline."""

    device_name: str
    calibration_type: str
    calibration: CalibrationRecord | None
    lane: DrawnLane


def overview_page(site: PageContext) -> Page:
    """The site's first page."""

    def answer(request: Request) -> Response:
        sought = request.query_params.get("q", "").strip()
        now = instants.now()
        keys = site.timelines.keys(MAX_OVERVIEW_KEYS + 1)
        known = [*zip(keys[:MAX_OVERVIEW_KEYS], site.timelines.in_force(keys[:MAX_OVERVIEW_KEYS], now), strict=True)]
        found = [each for each in known if _matches(sought, *each)]
        shown = found[:MAX_OVERVIEW_ROWS]
        look = timeline_layout.window_from_query(request.query_params, site.timelines.time_range(), now)
        lanes = site.timelines.lanes([key for key, _ in shown], look.period, MAX_OVERVIEW_POINTS, OVERVIEW_STEPS)
        runs, all_runs = site.timelines.runs(look.period, MAX_OVERVIEW_RUNS, MAX_OVERVIEW_RUNS)
        return site.render(
            request,
            "overview.html",
            q=sought,
            look=look,
            rows=[
                OverviewRow(*key, calibration, timeline_layout.draw_lane(lane, look.period))
                for (key, calibration), lane in zip(shown, lanes, strict=True)
            ],
            found=len(found),
            there_are_more=len(keys) > MAX_OVERVIEW_KEYS,
            most_keys=MAX_OVERVIEW_KEYS,
            whole=all(lane.complete for lane in lanes),
            ticks=timeline_layout.ticks(look.period, 6),
            runs=timeline_layout.run_marks(runs, look.period),
            all_runs=all_runs,
            present=timeline_layout.mark(now, look.period, "now"),
        )

    return site.page("/", "page_overview", answer)


def _matches(sought: str, key: tuple[str, str], calibration: CalibrationRecord | None) -> bool:
    """Whether each word that is sought occurs somewhere."""
    told = [*key, *((calibration.author, calibration.comment or "") if calibration else ())]
    where = " ".join(told).casefold()
    return all(word in where for word in sought.casefold().split())


# Drawn exactly up to so many, and beyond at so many instants.
MAX_TIMELINE_POINTS, TIMELINE_STEPS = 300, 500

# Of calibrations and of runs: the table below the drawing has no more rows, the strip no more marks.
MAX_TIMELINE_ROWS, MAX_TIMELINE_RUNS = 50, 300


def timeline_page(site: PageContext) -> Page:
    """One for each device and type that there is."""

    def answer(request: Request) -> Response:
        key = (
            arguments.normalised_device_name(request.path_params["device_name"]),
            arguments.normalised_calibration_type(request.path_params["calibration_type"]),
        )
        now = instants.now()
        extent = site.timelines.time_range(key)
        if extent is None:
            hint = "the overview tells what there is"
            raise CalibrationNotFound(hint, device_name=key[0], calibration_type=key[1])
        look = timeline_layout.window_from_query(request.query_params, extent, now)
        period = look.period
        lane = site.timelines.lanes([key], period, MAX_TIMELINE_POINTS, TIMELINE_STEPS)[0]
        runs, all_runs = site.timelines.runs(period, MAX_TIMELINE_RUNS, TIMELINE_STEPS)
        rows = site.timelines.calibrations_in(key, period, MAX_TIMELINE_ROWS + 1)
        ticks = timeline_layout.ticks(period)
        return site.render(
            request,
            "timeline.html",
            key=key,
            look=look,
            lane=timeline_layout.draw_lane(lane, period),
            whole=lane.complete,
            ticks=ticks,
            parts=timeline_layout.tick_links(period, ticks),
            ways=timeline_layout.navigation(look),
            runs=timeline_layout.run_marks(runs, period),
            all_runs=all_runs,
            present=timeline_layout.mark(now, period, "now"),
            rows=rows[:MAX_TIMELINE_ROWS],
            more=len(rows) > MAX_TIMELINE_ROWS,
            after=timeline_layout.period_query(model.TimeRange(rows[-1].valid_from, period.stop))
            if len(rows) > MAX_TIMELINE_ROWS
            else "",
            superseded=frozenset(
                each.id for each in rows if each.valid_until == each.valid_from and not each.withdrawn
            ),
        )

    return site.page("/timeline/{device_name}/{calibration_type}", "page_timeline", answer)
