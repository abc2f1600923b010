"""`streamproc worker`: many jobs in one process, restarted when they fail, re-read when asked, drained at the end."""
