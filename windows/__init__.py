"""Kinds of windows: one module each, named in streamproc/registry.py. README.md says how to write one."""
