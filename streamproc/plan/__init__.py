"""Spark SQL text → Plan. `planner.plan_job` is the way in; what it makes is in `plan.py`, how it reads in `explain.py`."""
