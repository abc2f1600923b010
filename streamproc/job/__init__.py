"""The job file as a frozen value: read, checked, described."""
