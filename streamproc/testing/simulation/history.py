"""What happened in a run, in order: the evidence when a seed fails, and what two runs of a seed are compared by."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamproc.testing.virtual_loop import VirtualLoop


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that is broken, and how."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened `at_s` seconds of virtual time after the begin, by or to `who`. Minor ones are not printed."""

    at_s: float
    who: str
    what: str
    minor: bool = False

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} {self.who:<4} {self.what}"


@dataclass
class History:
    """Events and the first broken promise, if any; names of workers stand for their ids."""

    loop: VirtualLoop
    events: list[Event] = field(default_factory=list)
    violation: Violation | None = None
    aliases: dict[str, str] = field(default_factory=dict)

    def note(self, who: str, what: str, *, minor: bool = False) -> None:
        self.events.append(Event(self.loop.time(), who, what, minor))

    def broken(self, invariant: str, text: str) -> None:
        """Keep the first violation: what comes after it may be its consequence."""
        self.note("!!!!", f"{invariant}: {text}")
        self.violation = self.violation or Violation(invariant, text)

    def name(self, owner: str | None) -> str:
        """A worker's short name for its id."""
        return "nobody" if owner is None else self.aliases.get(owner, owner)

    def lines(self) -> list[str]:
        """What a reader wants to see."""
        return [str(event) for event in self.events if not event.minor]

    def __repr__(self) -> str:
        return f"<History {len(self.events)} events{f', {self.violation}' if self.violation else ''}>"
