"""Keyed state as runs, and the watermark."""
