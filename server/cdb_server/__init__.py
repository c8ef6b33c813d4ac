"""The server of the MICE calibration database: masters that take writes, mirrors that repeat them."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("mice-cdb")
