"""Jobs in a Faust worker: `streamproc.faust.attach(app, "job.yaml")` in the module of the app."""

from __future__ import annotations

from streamproc.faust.attach import attach

__all__ = ["attach"]
