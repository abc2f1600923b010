"""Faust apps as a source and a sink see them. faust-streaming is imported once a job names an app, never before."""
