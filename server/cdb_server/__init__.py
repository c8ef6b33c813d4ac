"""The server of the MICE calibration database: masters accept writes, mirrors serve read-only copies."""

from importlib.metadata import version

__version__ = version("mice-cdb")
