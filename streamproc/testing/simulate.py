"""`python -m streamproc.testing.simulate`: many seeds, one after another or in several processes."""

from __future__ import annotations

from streamproc.testing.simulation.command import main

if __name__ == "__main__":
    main()
