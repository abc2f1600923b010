"""The epoch's steps, the task that repeats them, the worker that holds the lease."""
