"""The version, alone in a module so that the command line can print it without importing numpy."""

__version__ = "0.2.0"
