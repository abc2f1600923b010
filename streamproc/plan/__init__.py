"""Spark SQL to a plan of steps, by a visible tuple of rules."""
