"""Speaks HTTP/1.1 on one connection: fast path, limits and deadlines, request rules."""
