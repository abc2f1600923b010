"""Which tasks there are and which may run, by shards as Kinesis splits and merges them and as Kafka adds them."""

from __future__ import annotations

from streamproc.checkpoint.tasks import KnownTasks, TaskScope, task_name
from streamproc.engine.task_set import children_of, grown, parents_of, runnable, scopes_of
from streamproc.source import Shard

WHOLE, LOW, HIGH = Shard("0", (), (0, 9)), Shard("1", ("0",), (0, 4)), Shard("2", ("0",), (5, 9))
MERGED = Shard("3", ("1", "2"), (0, 9))
NOTHING = KnownTasks()


def scopes(*shards: Shard, source: str = "s") -> dict[str, TaskScope]:
    return scopes_of({source: shards}, NOTHING)


def names(found: list[TaskScope]) -> list[str]:
    return [scope.name for scope in found]


def test_every_listed_and_every_noted_shard_is_a_task() -> None:
    gone = TaskScope.of("s", WHOLE)
    found = scopes_of({"s": [LOW, HIGH], "t": [Shard("1")]}, KnownTasks({gone.name: gone}))
    assert sorted(found) == ["s.0", "s.1", "s.2", "t.1"]
    assert (found["t.1"].source, found["t.1"].shard) == ("t", Shard("1"))


def test_what_was_noted_stands_whatever_is_listed_later() -> None:
    noted = TaskScope.of("s", LOW)
    assert scopes_of({"s": [Shard("1")]}, KnownTasks({noted.name: noted}))["s.1"] is noted


def test_names_of_tasks_are_fit_for_objects_and_no_two_are_the_same() -> None:
    assert task_name("a", "shardId-000000000001") == "a.shardId-000000000001"
    assert task_name("a", "dir/file 1.json") == "a.dir%2Ffile%201.json"
    assert len({task_name("a", "b/c"), task_name("a/b", "c"), task_name("a%2Fb", "c")}) == 3


def test_children_may_run_once_all_their_parents_are_over() -> None:
    whole = scopes(WHOLE, LOW, HIGH, MERGED)
    assert names(runnable(whole, set())) == ["s.0"]
    assert names(runnable(whole, {"s.0"})) == ["s.1", "s.2"]
    assert names(runnable(whole, {"s.0", "s.1"})) == ["s.2"]
    assert names(runnable(whole, {"s.0", "s.1", "s.2"})) == ["s.3"]
    assert runnable(whole, {"s.0", "s.1", "s.2", "s.3"}) == []


def test_a_parent_that_is_gone_for_good_is_waited_for_by_nobody() -> None:
    left = scopes(HIGH, MERGED)
    assert names(runnable(left, set())) == ["s.2"]
    assert names(parents_of(left["s.3"], left)) == ["s.2"]
    assert names(runnable(scopes(MERGED), set())) == ["s.3"]


def test_a_parent_is_one_of_the_same_source() -> None:
    both = scopes(WHOLE) | scopes(LOW, source="t")
    assert names(runnable(both, set())) == ["s.0", "t.1"]


def test_the_task_over_all_shards_has_no_parents_and_no_children() -> None:
    assert parents_of(TaskScope(), scopes(WHOLE)) == []
    assert children_of(TaskScope(), scopes(WHOLE, LOW).values()) == []


def test_children_are_those_that_name_it_as_parent() -> None:
    whole = scopes(WHOLE, LOW, HIGH, MERGED)
    assert children_of(whole["s.0"], whole.values()) == [LOW, HIGH]
    assert children_of(whole["s.2"], whole.values()) == [MERGED]
    assert children_of(whole["s.3"], whole.values()) == []
    assert children_of(whole["s.0"], scopes(LOW, source="t").values()) == []


def test_only_partitions_that_came_out_of_nothing_have_grown() -> None:
    partitions = scopes(Shard("0"), Shard("1"), Shard("2"))
    assert grown(partitions, {"s": ["0", "1"]}) == ["s.2"]
    assert grown(partitions, {"s": ["0", "1", "2"]}) == []
    assert grown(partitions, {}) == ["s.0", "s.1", "s.2"]
    assert grown(scopes(WHOLE, LOW, HIGH, MERGED), {"s": ["0"]}) == []
    assert grown({"all": TaskScope()}, {}) == []
