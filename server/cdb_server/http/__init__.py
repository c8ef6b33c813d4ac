"""Serves HTTP: protocol, admission, authentication, caches, routes and metrics around the SOAP services and pages."""
