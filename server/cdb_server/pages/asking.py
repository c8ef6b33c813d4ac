"""What applies to …: a run number or a date, and perhaps an as-of, as a form or an address asks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

from cdb_server.errors import InvalidArgument
from cdb_server.model import Applied
from cdb_server.pages import typed, words
from cdb_server.repository import Explaining


@dataclass(frozen=True, slots=True)
class Question:
    """What was typed, what it means, and what is wrong with it: by field, in words."""

    typed: dict[str, str]
    run_number: int | None = None
    date: datetime | None = None
    as_of: datetime | None = None
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def is_asked(self) -> bool:
        """Whether there is something to answer."""
        return not self.wrong and (self.run_number is not None or self.date is not None)

    @property
    def name(self) -> str:
        """The question as the name of a file: `run7662`, `2016-03-01T08.00.00Z`."""
        if self.run_number is not None:
            return f"run{self.run_number}"
        return "" if self.date is None else words.exact(self.date).replace(":", ".").replace(".000000Z", "Z")

    @property
    def query(self) -> str:
        """The question as the query of an address."""
        return self.at(self.as_of)

    def at(self, as_of: datetime | None) -> str:
        """The same with another as_of."""
        what = {"date": words.exact(self.date)} if self.date is not None else {"run": str(self.run_number)}
        return urlencode(what | ({} if as_of is None else {"as_of": words.exact(as_of)}))

    def answer(self, explaining: Explaining) -> Applied:
        """All that applies. Raises CdbError."""
        if self.wrong:
            raise InvalidArgument(next(iter(self.wrong)), "; ".join(self.wrong.values()))
        if self.run_number is not None:
            return explaining.for_run(self.run_number, self.as_of)
        if self.date is not None:
            return explaining.for_date(self.date, self.as_of)
        raise InvalidArgument("run", "nothing is asked: give a run number or a date")

    def with_wrong(self, argument: str, problem: str) -> "Question":
        """The same, with what is wrong with one of its fields."""
        return Question(self.typed, wrong={argument: problem})


def asked(query: Mapping[str, str]) -> Question:
    """The question of an address."""
    given = {name: query.get(name, "").strip() for name in ("run", "date", "as_of")}
    wrong: dict[str, str] = {}
    run_number, date, as_of = None, None, None
    try:
        run_number = typed.number(given["run"]) if given["run"] else None
    except ValueError as error:
        wrong["run"] = str(error)
    try:
        date = typed.instant(given["date"]) if given["date"] else None
    except ValueError as error:
        wrong["date"] = str(error)
    try:
        as_of = typed.instant(given["as_of"]) if given["as_of"] else None
    except ValueError as error:
        wrong["as_of"] = str(error)
    if given["run"] and given["date"]:
        wrong["date"] = "a run and a date exclude each other: leave one of them empty"
    if given["as_of"] and not given["run"] and not given["date"]:
        wrong["run"] = "give a run number or a date"
    return Question(given, run_number, date, as_of, wrong)
