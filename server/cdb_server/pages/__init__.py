"""The web interface: pages made here and read anywhere, without JavaScript.

A page is a template, filled in a thread with what the repository answers. It holds no rule: what applies, and why, is
for the repository to say.
"""

from cdb_server.pages.archive import Archive
from cdb_server.pages.desk import Desk
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site
from cdb_server.pages.static import STATIC_PATH
from cdb_server.pages.walk import PAGE_NAMES, pages

__all__ = ["PAGE_NAMES", "STATIC_PATH", "Archive", "Desk", "Page", "Site", "pages"]
