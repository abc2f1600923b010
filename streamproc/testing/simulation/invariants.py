"""What must hold at every moment of a run, checked as objects, rows and leases arrive at the servers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pyarrow as pa

from streamproc.checkpoint.records import Begin, Commit, Floor, decode
from streamproc.checkpoint.tasks import ALL
from streamproc.sink import EpochId
from streamproc.state.watermark import inherited
from streamproc.testing.simulation.history import History
from streamproc.testing.simulation.stream import Stream
from streamproc.testing.simulation.workload import SOURCE


@dataclass
class Line:
    """What is known of one task's log."""

    begins: dict[int, Begin] = field(default_factory=dict)
    commits: dict[int, Commit] = field(default_factory=dict)
    floor: int = 0

    @property
    def newest(self) -> int:
        return max(self.commits, default=-1)


class Invariants:
    """Watches the store, the sink and the source; the first promise broken ends the run.

    `positions` is how far each shard's rows are committed, over all tasks that ever read it; `over` the shards whose end is.
    """

    def __init__(self, history: History, stream: Stream) -> None:
        self.lines: dict[str, Line] = defaultdict(Line)
        self.positions: dict[str, int] = {}
        self.over: set[str] = set()
        self.written: dict[EpochId, pa.Table] = {}
        self._history = history
        self._stream = stream

    def created(self, name: str, data: bytes, replaced: bool) -> None:
        """An object was put into the store."""
        if "/epochs/" in name:
            task, _, file = name.partition("/")[2].partition("/epochs/")
            epoch, kind = int(file.partition(".")[0]), file.partition(".")[2]
            if replaced:
                self._history.broken("two owners never both commit", f"{name} was there and was replaced")
            if kind == "begin":
                self._begun(task, epoch, decode(data, Begin, name))
            elif kind == "commit":
                self._committed(task, epoch, decode(data, Commit, name))
        elif name.endswith("/floor"):
            self.lines[name.split("/")[1]].floor = decode(data, Floor, name).epoch

    def sank(self, epoch: EpochId, table: pa.Table) -> None:
        """A write arrived at the sink."""
        if epoch.epoch not in self.lines[epoch.task].begins:
            self._history.broken("an epoch is logged before it is seen", f"{epoch.task} {epoch.epoch} was written, but never begun")
        before = self.written.setdefault(epoch, table)
        if not before.equals(table):
            self._history.broken(
                "the same epoch gives the same rows",
                f"{epoch.task} {epoch.epoch} first wrote {before.to_pylist()}, then {table.to_pylist()}",
            )

    def opened(self, shard: str) -> None:
        """A reader was opened."""
        if early := [parent for parent in self._stream.parents[shard] if parent not in self.over]:
            self._history.broken("parents are read to their end first", f"{shard} was opened, but the end of {early} is not committed")

    def is_over(self, task: str) -> bool:
        """Whether the task's log has ended: its shard has, or it went on as part of another."""
        line = self.lines.get(task)
        if task != ALL and self.lines[ALL].newest > 0:
            return True
        return task.rpartition(".")[2] in self.over or (line is not None and bool(line.commits) and line.commits[line.newest].closed)

    def unread(self, ends: dict[str, int]) -> dict[str, int]:
        """Rows of each shard up to `ends` that no commit covers."""
        left = {shard: end - 1 - self.positions.get(shard, -1) for shard, end in ends.items()}
        return {shard: rows for shard, rows in left.items() if rows > 0}

    def _begun(self, task: str, epoch: int, begin: Begin) -> None:
        line = self.lines[task]
        if epoch <= line.newest:
            self._history.note("", f"{task} {epoch}.begin was made again by a sleeper")
            if epoch >= line.floor:
                self._history.broken("an epoch is begun once", f"{task} {epoch} was begun after {line.newest} was committed")
            return
        if epoch != line.newest + 1:
            self._history.broken("epochs follow one another", f"{task} {epoch} was begun after {line.newest}")
        rows = {shard: f"{b.after}..{b.until}" for shards in begin.shards.values() for shard, b in shards.items() if b.until != b.after}
        self._history.note("", f"{task} {epoch} begun, writer {begin.writer[:4]}, rows {rows}")
        line.begins[epoch] = begin

    def _committed(self, task: str, epoch: int, commit: Commit) -> None:
        line = self.lines[task]
        if epoch <= line.newest:
            self._history.note("", f"{task} {epoch}.commit was made again by a sleeper")
            if epoch >= line.floor:
                self._history.broken("two owners never both commit", f"{task} {epoch} was committed again; its newest is {line.newest}")
            return
        self._check_time(task, epoch, line.commits.get(line.newest), commit)
        self._check_rows(task, epoch, line.begins.get(epoch), commit)
        self._history.note("", f"{task} {epoch} committed, writer {commit.writer[:4]}, watermark {_seconds(commit.watermark_us)}")
        line.commits[epoch] = commit
        for name, late in commit.late.items():
            if late:
                self._history.broken("no row is late", f"{late} rows of {name} up to {task} {epoch}")

    def _check_time(self, task: str, epoch: int, before: Commit | None, commit: Commit) -> None:
        if before is None:
            parents = [
                line.commits[line.newest] for shard in self._stream.parents.get(task.rpartition(".")[2], ()) for line in self._of(shard)
            ]
            least_us = inherited([parent.watermark_us for parent in parents])
            if least_us is not None and (commit.watermark_us is None or commit.watermark_us < least_us):
                self._back(task, epoch, least_us, commit.watermark_us)
            return
        if commit.now_us <= before.now_us:
            self._history.broken("the logged time rises", f"{task} {epoch}: {commit.now_us} after {before.now_us}")
        if before.watermark_us is not None and (commit.watermark_us is None or commit.watermark_us < before.watermark_us):
            self._back(task, epoch, before.watermark_us, commit.watermark_us)

    def _of(self, shard: str) -> list[Line]:
        """The shard's own log, if it has one."""
        line = self.lines.get(f"{SOURCE}.{shard}")
        return [line] if line is not None and line.commits else []

    def _back(self, task: str, epoch: int, before_us: int, now_us: int | None) -> None:
        self._history.broken("the watermark never goes back", f"{task} {epoch}: from {_seconds(before_us)} to {_seconds(now_us)}")

    def _check_rows(self, task: str, epoch: int, begin: Begin | None, commit: Commit) -> None:
        """Each row is in one epoch of one task, in order."""
        for shard, end in commit.shards.get(SOURCE, {}).items():
            stands, now = self.positions.get(shard), int(end.end)
            began = begin.shards[SOURCE].get(shard) if begin is not None and commit.aborted is None else None
            after = int(began.after) if began else now
            if (stands is not None and after != stands) or (began and began.until != end.end):
                self._history.broken(
                    "each row is counted once", f"{task} {epoch}: {shard} from {after} to {now}, but the rows up to {stands} are committed"
                )
            self.positions[shard] = now
            if end.ended:
                self.over.add(shard)
        if begin is not None and sum(commit.written.values()) > sum(self._written_before(task).values()):
            self._check_written(task, epoch)

    def _written_before(self, task: str) -> dict[str, int]:
        line = self.lines[task]
        return line.commits[line.newest].written if line.commits else {}

    def _check_written(self, task: str, epoch: int) -> None:
        if not any(known.task == task and known.epoch == epoch for known in self.written):
            self._history.broken("sinks are written before the commit", f"{task} {epoch} was committed, its rows are in no sink")

    def __repr__(self) -> str:
        return f"<Invariants {len(self.lines)} tasks, {len(self.written)} writes>"


def _seconds(us: int | None) -> str:
    return "none" if us is None else f"{us / 1e6 % 86_400:.3f}"
