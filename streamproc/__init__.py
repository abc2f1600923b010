"""streamproc: streams as unbounded tables, SQL windows, exactly once."""

__version__ = "0.1.0"
