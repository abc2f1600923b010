"""`streamproc demo`: an embedded server, a producer, a worker, and at the end the proof that nothing is lost, twice or wrong."""

from streamproc.demo.show import run_demo

__all__ = ["run_demo"]
