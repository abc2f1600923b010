"""The epoch log, its retention, and recovery from it."""
