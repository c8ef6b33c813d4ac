"""The ASGI application and the server that runs it: routes, limits, deadlines, authentication."""

from cdb_server.http.serve import LOGGING, listen, serve

__all__ = ["LOGGING", "listen", "serve"]
