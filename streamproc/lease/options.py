"""The key `leases` of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from streamproc.options import Duration, Options

_ONLY = {"path": "sqlite", "table": "dynamodb", "region": "dynamodb", "endpoint_url": "dynamodb", "adopt": "dynamodb"}


class LeaseOptions(Options):
    """Where it is noted which worker runs the job. Default: sqlite beside a local checkpoint, an object in a remote one."""

    type: Literal["sqlite", "object", "dynamodb"] = Field(
        description="sqlite: a file of this machine; object: if-match object in the checkpoint; dynamodb: the table of a KCL application"
    )
    path: str | None = Field(None, description="file of the sqlite table")
    table: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]{3,255}$", description="name of the DynamoDB table, KCL's application name (default: the job's name)"
    )
    region: str | None = Field(None, description="of DynamoDB; default: the platform's (AWS_REGION, profile)")
    endpoint_url: str | None = Field(None, description="of DynamoDB; default: the platform's (AWS_ENDPOINT_URL), else AWS")
    lease_ttl: Duration = Field(10_000_000, gt=0, description="a worker that is silent for so long has lost its lease")
    max_leases: int | None = Field(None, gt=0, description="tasks that one worker takes at most")
    balance: Literal["count", "throughput"] = Field("count", description="what workers share evenly: tasks, or the bytes they read")
    adopt: bool = Field(False, description="go on from positions that another program has written to the table, instead of stopping")

    @model_validator(mode="after")
    def _fitting(self) -> LeaseOptions:
        for key in sorted(self.model_fields_set & _ONLY.keys()):
            if _ONLY[key] != self.type:
                raise ValueError(f"{key} is of leases of type {_ONLY[key]}, not {self.type}: remove it")
        return self
