"""The lease contract and its tables: who should run a task."""
