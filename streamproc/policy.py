"""`streamproc policy`: the IAM policy under which one job runs on AWS, and nothing more.

Which key of which service an action needs: docs.aws.amazon.com/service-authorization/latest/reference. S3 answers 404 for an
absent object only to those who may list it; it judges that by the object's name as `s3:prefix`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamproc.job import Job, SinkSpec, SourceSpec
from streamproc.lease.dynamodb import TASKS

STREAM = ("kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards")
REGISTER = ("kinesis:RegisterStreamConsumer",)
CONSUMER = ("kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard")
READ = ("s3:GetObject",)
WRITE = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")
LIST = ("s3:ListBucket",)
ENCRYPT = ("kms:Decrypt", "kms:GenerateDataKey")
LEASES = tuple(
    f"dynamodb:{action}" for action in ("BatchGetItem", "CreateTable", "DeleteItem", "DescribeTable", "PutItem", "Scan", "UpdateItem")
)
CONNECT = ("kafka-cluster:Connect",)
TOPIC = ("kafka-cluster:DescribeTopic", "kafka-cluster:ReadData")
GROUP = ("kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup")
_WILD = re.compile(r"[*?\[]")
_LITERAL = re.compile(r"(?:[\w-]|\\[.\-])*")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}

Condition = Mapping[str, Mapping[str, str | list[str]]]


@dataclass(frozen=True)
class Statement:
    """What is allowed on which ARNs."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: Condition = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As IAM writes it."""
        body = {"Sid": self.sid, "Effect": "Allow", "Action": list(self.actions), "Resource": list(self.resources)}
        return body | ({"Condition": self.condition} if self.condition else {})


@dataclass(frozen=True)
class Account:
    """Where the resources are that the job does not name in full: account id and region, `*` where nobody said."""

    id: str = "*"
    region: str = "*"

    def partition(self, region: str | None = None) -> str:
        return next((name for prefix, name in _PARTITIONS.items() if (region or self.region).startswith(prefix)), "aws")

    def arn(self, service: str, resource: str, region: str | None = None) -> str:
        return f"arn:{self.partition(region)}:{service}:{region or self.region}:{self.id}:{resource}"


def policy(job: Job, account: Account) -> dict[str, Any]:
    """The policy document of a job; without statements where nothing of it is on AWS."""
    statements = [*_streams(job, account), *_kafka(job, account), *_objects(job, account), *_keys(job, account), *_leases(job, account)]
    return {"Version": "2012-10-17", "Statement": [statement.document() for statement in statements]}


def notes(job: Job, document: Mapping[str, Any]) -> Iterator[str]:
    """What the reader of the document should know."""
    if not document["Statement"]:
        yield f"nothing of job {job.name} is on AWS: it needs no policy"
    if any(_msk(source) for source in job.sources.values()):
        yield "put the cluster's name and uuid in the place of */* in the kafka ARNs; the job file does not know them"
    if any(":s3:" in arn or ":kinesis:" in arn for statement in document["Statement"] for arn in statement["Resource"]):
        yield "a stream or bucket that is encrypted with a KMS key of yours needs kms:Decrypt on it, to write also kms:GenerateDataKey"


def _streams(job: Job, account: Account) -> Iterator[Statement]:
    streams: list[Any] = [source.options for source in job.sources.values() if source.type == "kinesis"]
    if streams:
        yield Statement("ReadStreams", STREAM, _unique(_stream(options, account) for options in streams))
    fans = [options for options in streams if options.consumer]
    if fans:
        yield Statement("RegisterConsumers", REGISTER, _unique(_stream(options, account) for options in fans))
        named = (f"{_stream(options, account)}/consumer/{options.consumer}" for options in fans)
        yield Statement("ReadConsumers", CONSUMER, _unique(arn for name in named for arn in (name, f"{name}:*")))  # described, subscribed


def _stream(options: Any, account: Account) -> str:
    return str(options.stream_arn or account.arn("kinesis", f"stream/{options.stream}", options.region))


def _msk(source: SourceSpec) -> bool:
    security: Any = getattr(source.options, "security", None)
    return security is not None and security.mechanism == "AWS_MSK_IAM"


def _kafka(job: Job, account: Account) -> Iterator[Statement]:
    sources: list[Any] = [source.options for source in job.sources.values() if _msk(source)]
    if not sources:
        return

    def arns(kind: str, options: Any, names: Iterable[str]) -> Iterator[str]:
        return (account.arn("kafka", f"{kind}/*/*{name}", options.security.region) for name in names)

    yield Statement("Connect", CONNECT, _unique(arn for o in sources for arn in arns("cluster", o, [""])))
    yield Statement("ReadTopics", TOPIC, _unique(arn for o in sources for arn in arns("topic", o, _topics(o))))
    if groups := _unique(arn for o in sources if o.group for arn in arns("group", o, [f"/{o.group}"])):
        yield Statement("MirrorOffsets", GROUP, groups)


def _topics(options: Any) -> list[str]:
    if options.topic_pattern is not None:
        return [f"/{_literal(options.topic_pattern)}*"]
    return [f"/{topic}" for topic in ([options.topic] if isinstance(options.topic, str) else options.topic)]


def _literal(pattern: str) -> str:
    """What every name that matches the regular expression begins with."""
    found = _LITERAL.match(pattern)
    if found is None or "|" in pattern:
        return ""
    start = found[0]
    if pattern[len(start) : len(start) + 1] in ("*", "?", "{"):
        start = re.sub(r"(\\.|.)$", "", start)
    return start.replace("\\", "")


def _objects(job: Job, account: Account) -> Iterator[Statement]:
    written = _places([job.checkpoint, *(_path(sink) for sink in _sinks(job))])
    read = _places(_path(table) for table in (*job.sources.values(), *job.tables.values()))
    buckets = f"arn:{account.partition()}:s3:::"
    if read:
        yield Statement("ReadObjects", READ, tuple(f"{buckets}{place}*" for place in read))
    if written:
        yield Statement("WriteObjects", WRITE, tuple(f"{buckets}{place}*" for place in written))
    prefixes: dict[str, list[str]] = {}
    for bucket, _, prefix in (place.partition("/") for place in _unique((*written, *read))):
        prefixes.setdefault(bucket, []).append(prefix)
    for number, (bucket, below) in enumerate(prefixes.items(), 1):
        condition = {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in below]}}
        yield Statement(f"ListBucket{number}", LIST, (f"{buckets}{bucket}",), condition if all(below) else {})


def _sinks(job: Job) -> list[SinkSpec]:
    named = [*job.sinks.values(), *(sink.late for sink in job.sinks.values()), job.dead_letter]
    return [sink for sink in named if sink is not None]


def _path(spec: Any) -> str:
    return str(getattr(spec.options, "path", ""))


def _places(urls: Iterable[str]) -> tuple[str, ...]:
    """`bucket/prefix/` of those that are in S3; wildcards, and what follows them, left out."""
    names = (url.removeprefix("s3://") for url in urls if url.startswith("s3://"))
    return _unique(f"{_folder(name).rstrip('/')}/" for name in names)


def _folder(name: str) -> str:
    wild = _WILD.search(name)
    return name[: wild.start()].rpartition("/")[0] if wild else name


def _keys(job: Job, account: Account) -> Iterator[Statement]:
    names = _unique(key for sink in _sinks(job) if (key := getattr(sink.options, "kms_key", None)))
    aliases = [name for name in names if ":alias/" in f":{name}"]
    if keys := tuple(name if name.startswith("arn:") else account.arn("kms", f"key/{name}") for name in names if name not in aliases):
        yield Statement("EncryptObjects", ENCRYPT, keys)
    if aliases:  # rights go by the key itself, which only AWS knows
        condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": [f"alias/{name.partition('alias/')[2]}" for name in aliases]}}
        yield Statement("EncryptObjectsByAlias", ENCRYPT, (account.arn("kms", "key/*"),), condition)


def _leases(job: Job, account: Account) -> Iterator[Statement]:
    options: Any = job.leases
    if options is None or options.type != "dynamodb":
        return
    table = account.arn("dynamodb", f"table/{options.table or job.name}", options.region)
    kcl = (table,) if any(source.type == "kinesis" for source in job.sources.values()) else ()
    yield Statement("ShareLeases", LEASES, (*kcl, f"{table}{TASKS}"))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
