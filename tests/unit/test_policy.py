"""`streamproc policy`: what a job may do on AWS, and nothing more."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import Session
from click.testing import CliRunner

from streamproc import policy
from streamproc.cli import cli

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "123456789012"
KINESIS = "clicks: {type: kinesis, stream: clicks, region: eu-west-1, schema: 'page STRING'}"
KAFKA = "clicks: {type: kafka, topic: clicks, bootstrap_servers: 'b:9092', schema: 'page STRING'}"
LOCAL = "out: {type: console, query: SELECT page FROM clicks}"


def job(folder: Path, *, sources: str = KINESIS, sinks: str = LOCAL, more: str = "") -> Path:
    file = folder / "job.yaml"
    file.write_text(f"name: views\nsources:\n  {sources}\nsinks:\n  {sinks}\n{more}\n")
    return file


def printed(file: Path, *arguments: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Statements by their id, and what was said beside the document."""
    result = CliRunner().invoke(cli, ["policy", str(file), "--account", ACCOUNT, *arguments])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["Version"] == "2012-10-17"
    return {statement["Sid"]: statement for statement in document["Statement"]}, result.stderr


def test_a_stream_may_be_read_and_nothing_else(tmp_path: Path) -> None:
    statements, _ = printed(job(tmp_path))
    assert {sid: s["Resource"] for sid, s in statements.items()} == {"ReadStreams": [f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/clicks"]}
    assert statements["ReadStreams"]["Action"] == sorted(policy.STREAM)


def test_a_consumer_of_its_own_may_be_registered_described_by_its_name_and_subscribed_by_its_arn(tmp_path: Path) -> None:
    fan_out = "clicks: {type: kinesis, stream: clicks, region: eu-west-1, read: fan_out, consumer: views, schema: 'page STRING'}"
    statements, _ = printed(job(tmp_path, sources=fan_out))
    stream = f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/clicks"
    assert (statements["RegisterConsumers"]["Action"], statements["RegisterConsumers"]["Resource"]) == (list(policy.REGISTER), [stream])
    consumers = statements["ReadConsumers"]
    assert consumers["Action"] == list(policy.CONSUMER)
    assert consumers["Resource"] == [f"{stream}/consumer/views", f"{stream}/consumer/views:*"]


@pytest.mark.parametrize(("sources", "tables"), [(KINESIS, ["views", "views-streamproc"]), (KAFKA, ["views-streamproc"])])
def test_leases_in_dynamodb_may_be_shared(tmp_path: Path, sources: str, tables: list[str]) -> None:
    """Rows of shards lie in the table of KCL, all others in one of their own."""
    more = "leases: {type: dynamodb, region: eu-west-1}\ncheckpoint: s3://lake/log"
    statements, _ = printed(job(tmp_path, sources=sources, more=more))
    assert statements["ShareLeases"]["Resource"] == [f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/{table}" for table in tables]
    assert statements["ShareLeases"]["Action"] == list(policy.LEASES)


def test_an_arn_in_the_job_keeps_its_account(tmp_path: Path) -> None:
    arn = "arn:aws:kinesis:us-east-1:999999999999:stream/clicks"
    statements, _ = printed(job(tmp_path, sources=f"clicks: {{type: kinesis, stream_arn: '{arn}', schema: 'page STRING'}}"))
    assert statements["ReadStreams"]["Resource"] == [arn]


def test_what_nobody_said_is_any_account_and_region(tmp_path: Path) -> None:
    file = job(tmp_path, sources="clicks: {type: kinesis, stream: clicks, schema: 'page STRING'}")
    document = json.loads(CliRunner().invoke(cli, ["policy", str(file)]).stdout)
    assert document["Statement"][0]["Resource"] == ["arn:aws:kinesis:*:*:stream/clicks"]


@pytest.mark.parametrize(("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")])
def test_the_partition_follows_from_the_region(tmp_path: Path, region: str, partition: str) -> None:
    file = job(tmp_path, sources="clicks: {type: kinesis, stream: clicks, schema: 'page STRING'}", more="checkpoint: s3://lake/log")
    statements, _ = printed(file, "--region", region)
    assert statements["ReadStreams"]["Resource"] == [f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/clicks"]
    assert statements["WriteObjects"]["Resource"] == [f"arn:{partition}:s3:::lake/log/*"]


def test_objects_are_allowed_by_prefix_and_listed_below_it(tmp_path: Path) -> None:
    sinks = (
        "out: {type: files, path: 's3://lake/out/', late: {type: files, path: 's3://lake/late'}, "
        "query: \"SELECT window.start AS at, count(*) AS n FROM rows GROUP BY window(ts, '1 minute')\"}"
    )
    sources = "rows: {type: files, path: 's3://inbox/in/*.json', schema: 'page STRING, ts TIMESTAMP', watermark: {column: ts}}"
    more = "checkpoint: s3://lake/log\ndead_letter: {type: files, path: 's3://dead/'}"
    statements, said = printed(job(tmp_path, sources=sources, sinks=sinks, more=more))
    assert statements["ReadObjects"]["Resource"] == ["arn:aws:s3:::inbox/in/*"]
    assert statements["ReadObjects"]["Action"] == ["s3:GetObject"]
    written = ["arn:aws:s3:::lake/log/*", "arn:aws:s3:::lake/out/*", "arn:aws:s3:::lake/late/*", "arn:aws:s3:::dead/*"]
    assert statements["WriteObjects"]["Resource"] == written
    listed = {s["Resource"][0]: s.get("Condition") for sid, s in statements.items() if sid.startswith("ListBucket")}
    assert listed == {
        "arn:aws:s3:::lake": {"StringLike": {"s3:prefix": ["log/*", "out/*", "late/*"]}},
        "arn:aws:s3:::dead": None,  # all of it is the job's: a listing of it has no prefix
        "arn:aws:s3:::inbox": {"StringLike": {"s3:prefix": ["in/*"]}},
    }
    assert "KMS" in said


@pytest.mark.parametrize(
    ("key", "resource", "conditioned"),
    [
        ("1234abcd-12ab", f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab", False),
        ("arn:aws:kms:us-east-1:999999999999:key/k", "arn:aws:kms:us-east-1:999999999999:key/k", False),
        ("alias/lake", f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/*", True),
        ("arn:aws:kms:us-east-1:999999999999:alias/lake", f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/*", True),
    ],
)
def test_a_key_of_a_sink_may_be_used(tmp_path: Path, key: str, resource: str, conditioned: bool) -> None:
    sinks = f"out: {{type: files, path: 's3://lake/out', kms_key: '{key}', query: SELECT page FROM clicks}}"
    statements, _ = printed(job(tmp_path, sinks=sinks), "--region", "eu-west-1")
    statement = statements["EncryptObjectsByAlias" if conditioned else "EncryptObjects"]
    assert (statement["Action"], statement["Resource"]) == (["kms:Decrypt", "kms:GenerateDataKey"], [resource])
    alias = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/lake"]}}
    assert statement.get("Condition") == (alias if conditioned else None)


@pytest.mark.parametrize(
    ("topics", "resource"),
    [
        ("topic: clicks", "clicks"),
        (r"topic_pattern: 'readings\..*'", "readings.*"),
        ("topic_pattern: 'clicks?-v1'", "click*"),
        ("topic_pattern: 'a|b'", "*"),
        ("topic_pattern: '(a)b'", "*"),
    ],
)
def test_topics_of_msk_are_allowed_where_iam_decides(tmp_path: Path, topics: str, resource: str) -> None:
    security = "security: {mechanism: AWS_MSK_IAM, region: eu-west-1}, group: mirror"
    sources = f"clicks: {{type: kafka, {topics}, bootstrap_servers: 'b:9098', {security}, schema: 'page STRING'}}"
    statements, said = printed(job(tmp_path, sources=sources))
    where = f"arn:aws:kafka:eu-west-1:{ACCOUNT}"
    assert {sid: s["Resource"] for sid, s in statements.items()} == {
        "Connect": [f"{where}:cluster/*/*"],
        "ReadTopics": [f"{where}:topic/*/*/{resource}"],
        "MirrorOffsets": [f"{where}:group/*/*/mirror"],
    }
    assert "uuid" in said


def test_a_job_outside_aws_has_no_statements_and_says_so(tmp_path: Path) -> None:
    assert printed(job(tmp_path, sources=KAFKA)) == ({}, "streamproc: nothing of job views is on AWS: it needs no policy\n")


def test_a_wrong_job_file_exits_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["policy", str(job(tmp_path, sinks="out: {type: nothing}"))]).exit_code == 2


def granted(service: str) -> set[str]:
    every = (*policy.STREAM, *policy.REGISTER, *policy.CONSUMER, *policy.LEASES)
    return {action.partition(":")[2] for action in every if action.startswith(f"{service}:")}


def calls_in_code(service: str) -> set[str]:
    """Operations of the service that code names, as a method or in a string, in every module that makes clients of AWS."""
    operations = {xform_name(name): name for name in Session().get_service_model(service).operation_names}
    operations |= {name: name for name in operations.values()}
    files = [file for top in ("streamproc", "sources", "sinks") for file in (ROOT / top).rglob("*.py")]
    sources = [text for file in files if "clients.aws" in (text := file.read_text(encoding="utf-8"))]
    nodes = [node for text in sources for node in ast.walk(ast.parse(text))]
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {node.value.rpartition(".")[2] for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {operations[name] for name in named & set(operations)}


@pytest.mark.parametrize("service", ["kinesis", "dynamodb"])
def test_every_call_that_code_makes_is_granted_and_no_other(service: str) -> None:
    assert calls_in_code(service) == granted(service)
