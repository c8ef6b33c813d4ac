"""Sample files of the shapes that detector experts store, and the two tables by which they are loaded.

The content is made here, from a fixed seed: tables of the time-of-flight counters, channel maps, a tracker's
calibration as 900 kB of JSON on one line, lists of bad channels, an empty one among them. What is awkward is awkward on
purpose: most files end without a newline, devices come in mixed case, several files come under one valid_from, one run
has no start and one stops before it starts.
"""

import csv
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

UPLOADS = (
    ("TOF1", "t0", "2011-11-23 12:00:00.0", "tof1_t0_2011.txt"),
    ("TOF1", "tw", "2011-11-23 12:00:00.0", "tof1_tw_2011.txt"),
    ("TOF1", "trigger", "2011-11-23 12:00:00.0", "tof1_trigger_2011.txt"),
    ("KL", "gain", "2011-11-23 12:00:00.0", "kl_gain.txt"),
    ("TOF1", "cabling", "2011-11-23 12:00:00.0", "tof_channel_map.txt"),
    ("DAQ", "cabling", "2011-11-23 12:00:00.0", "daq_channel_map.txt"),
    ("tof1", "t0", "2013-08-01 00:00:00.0", "tof1_t0_2013.txt"),
    ("tof1", "tw", "2013-08-01 00:00:00.0", "tof1_tw_2013.txt"),
    ("tof1", "trigger", "2013-08-01 00:00:00.0", "tof1_trigger_2013.txt"),
    ("Trackers", "trackers", "2015-09-14 00:00:01.0", "trackers_2015.json"),
    ("Trackers", "bad_chan", "2015-09-14 00:00:01.0", "bad_channels_none.txt"),
    ("Trackers", "bad_chan", "2015-09-14 00:00:01.0", "bad_channels_2015.txt"),
    ("tof1", "trigger", "2016-10-01 00:00:00.0", "tof1_trigger_2016.txt"),
    ("TRACKERS", "trackers", "2017-09-14 00:00:00.0", "trackers_2017.json"),
    ("TRACKERS", "bad_chan", "2017-09-14 00:00:00.0", "bad_channels_none.txt"),
    ("TRACKERS", "bad_chan", "2017-09-14 00:00:00.0", "bad_channels_2017.txt"),
    ("tof1", "t0", "2017-09-20 00:00:00.0", "tof1_t0_2017.txt"),
)
RUNS = (
    ("7661", "2016-02-29 20:42:17.180620", ""),
    ("7662", "2016-02-29 20:47:00.218291", "2016-02-29 22:24:30.786753"),
    ("8348", "2016-10-04 17:54:00.180620", "2016-10-04 19:18:00.786753"),
    ("8743", "2016-12-06 03:59:00.0", "2016-12-06 05:51:00.0"),
    ("9204", "", "2017-02-25 23:52:28.334778"),
    ("9287", "2017-05-08 10:26:56.23627", "2017-05-08 12:00:29.356372"),
    ("9622", "2017-09-20 04:21:58.806249", "2017-09-20 04:47:06.295272"),
    ("10379", "2017-12-02 19:00:00.006000", "2017-12-02 19:57:00.000000"),
    ("10584", "2017-12-19 05:44:51.541482", "2017-12-19 05:41:04.706908"),
    ("10585", "2017-12-19 05:44:51.541482", "2017-12-19 06:00:19.746630"),
)


def write(folder: Path) -> None:
    """Write the sample files, `uploads.csv` and `runs.csv` into a folder, which is made when there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for year in (2011, 2013, 2017):
        _text(folder / f"tof1_t0_{year}.txt", _slab_table(year, (-60000.0, 3.0)))
        _text(folder / f"tof1_tw_{year}.txt", _slab_table(year, (850.0, 1000.0, -3.6e6, 2.7e9)))
    for year in (2011, 2013, 2016):
        _text(folder / f"tof1_trigger_{year}.txt", _pixel_table(year))
    _text(folder / "kl_gain.txt", _gains())
    _text(folder / "tof_channel_map.txt", _channel_map("TOFChannelKey", 107))
    _text(folder / "daq_channel_map.txt", _channel_map("DAQChannelKey", 330))
    for year in (2015, 2017):
        (folder / f"trackers_{year}.json").write_text(json.dumps(list(_tracker_channels(year))))
    (folder / "bad_channels_none.txt").write_bytes(b"")
    _text(folder / "bad_channels_2015.txt", _bad_channels(2015, 140))
    _text(folder / "bad_channels_2017.txt", _bad_channels(2017, 1400))
    _table(folder / "uploads.csv", ("device_name", "calibration_type", "valid_from", "file"), UPLOADS)
    _table(folder / "runs.csv", ("run_number", "start_time", "stop_time"), RUNS)


def _text(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines))


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _slab_table(year: int, scales: Sequence[float]) -> Iterator[str]:
    chance = random.Random(year)
    for station in (0, 1, 2):
        for plane in (0, 1):
            for slab in range(10):
                values = "".join(f"{scale * chance.uniform(0.5, 1.5):17.6g}" for scale in scales)
                yield f"TOFChannelKey {station} {plane} {slab} {slab % 2} tof{station}{values}"


def _pixel_table(year: int) -> Iterator[str]:
    chance = random.Random(year)
    for x in range(7):
        for y in range(7):
            yield f"TOFPixelKey 1 {x} {y} tof1 {chance.randint(-1000, 400):5}"


def _gains() -> Iterator[str]:
    chance = random.Random(0)
    for channel in range(21):
        for side in (0, 1):
            yield f"KLChannelKey\t{channel:02}\t{side}\tkl\t{chance.uniform(0.7, 1.3):.2f}"


def _channel_map(key: str, rows: int) -> Iterator[str]:
    for row in range(rows):
        yield f"{key}\t{row % 3:02}\t{row % 5:02}\t{row % 16:02}\t{100 + row % 30}\ttof{row % 3}"


def _tracker_channels(year: int) -> Iterator[dict[str, float]]:
    chance = random.Random(year)
    for channel in range(8400):
        yield {
            "tdc_gain": 0.0,
            "adc_gain": round(chance.uniform(0, 12), 2),
            "bank": channel // 512,
            "tdc_pedestal": 0.0,
            "channel": channel % 512,
            "adc_pedestal": round(chance.uniform(0, 30), 2),
        }


def _bad_channels(year: int, count: int) -> Iterator[str]:
    chance = random.Random(year)
    for bad in sorted(chance.sample(range(16 * 128), count)):
        yield f"{bad // 128} {bad % 128}"
