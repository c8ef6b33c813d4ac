"""A person's browser without its window, for the pages that write: what it sends, keeps and is sent."""

import re
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.servers import Master, Server

PATIENCE = 20

# What is filled in, by the fields' names; a file is a name and bytes.
Form = dict[str, Any]


@dataclass
class Visitor:
    """Somebody with a browser, at a server. Forms are sent as from the page that was visited last."""

    server: Server
    session: requests.Session = field(default_factory=requests.Session)

    def see(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        return self._text(self.session.get(f"{self.server.url}/{path}", timeout=PATIENCE), status)

    def send(self, path: str, status: int = 200, *, follow: bool = True, **form: Any) -> str:
        """What comes of a form; `file` is a name and bytes. A way on to another page is followed."""
        return self._text(self.post(path, follow=follow, **form), status)

    def post(
        self, path: str, *, follow: bool = True, headers: dict[str, str] | None = None, **form: Any
    ) -> requests.Response:
        """The same with all that comes. Without headers the form is this site's own."""
        told = {"Origin": self.server.url} if headers is None else headers
        files = {name: value for name, value in form.items() if isinstance(value, tuple)}
        texts = {name: value for name, value in form.items() if not isinstance(value, tuple)}
        return self.session.post(
            f"{self.server.url}/{path}",
            data=texts,
            files=files or None,
            headers=told,
            timeout=PATIENCE,
            allow_redirects=follow,
        )

    def _text(self, answer: requests.Response, status: int) -> str:
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.text


def signed_in(master: Master) -> Visitor:
    """Somebody who may write."""
    visitor = Visitor(master)
    visitor.send("sign-in", user=master.user, token=master.token)
    return visitor


def hidden(page: str) -> Form:
    """What a form's page keeps for the next step."""
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    assert not any("&" in value for _, value in fields)
    return dict(fields)
