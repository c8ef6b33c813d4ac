"""The ASGI application and the server that runs it: routes, limits, deadlines, authentication."""

from cdb_server.http.serve import listen, serve

__all__ = ["listen", "serve"]
