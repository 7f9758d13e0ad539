"""Getting the agent onto machines that have none: which host is worked on, how far it is, what comes next.

Each host goes through :data:`STEPS`. Those of a connection (:data:`CONNECTION_STEPS`) are repeated whenever
one is made; the others last: a new try goes on with the first that was not done. A host that fails for now
waits and is tried again, one that fails for good is not. No step may take longer than its time.

Life cycle: ``handle_…`` takes what happened, :meth:`Installation.poll_command` gives what to do, until it
returns None; :meth:`Installation.next_deadline` says when to call :meth:`Installation.handle_time`. Times are
monotonic seconds. Whoever works on a host does so under the number of its try; what is said of an older one
comes too late, and changes nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from p2pdist import limits
from p2pdist.errors import UsageError

Step = Literal["reach", "key", "login", "platform", "space", "copy", "service", "enrol", "start", "report"]
STEPS: tuple[Step, ...] = get_args(Step)
CONNECTION_STEPS = 3
"""How many of :data:`STEPS`, from the first, belong to a connection and end with it."""
DRY_STEPS = STEPS.index("space") + 1
"""How many of them change nothing: those that a dry run does."""
_REPORT = STEPS.index("report")

State = Literal["waiting", "running", "done", "failed"]
Outcome = Literal["done", "partly", "failed"]

STEP_S: Mapping[Step, float] = {
    "reach": 10.0,
    "key": 15.0,  # a small board takes seconds for a key exchange
    "login": 30.0,  # sshd itself delays a refusal, and asks the DNS
    "platform": 20.0,
    "space": 20.0,
    "copy": 3_600.0,  # as long as it goes on: see COPY_SILENCE_S
    "service": 60.0,
    "enrol": 120.0,  # longer than the agent's own patience with the admin server
    "start": 90.0,  # systemd's own patience with a service
    "report": 180.0,
}
"""How long each step may take."""
COPY_SILENCE_S = 30.0
"""How long copying may stand still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationSettings:
    """What holds for a whole run.

    Attributes:
        parallel: How many hosts are worked on at once; one that is waited for to report is not.
        tries_max: How often a host is tried.
        again_s: How long it waits before the second try; three times as long before each further one.
        dry_run: Only the steps that change nothing.
        one_login: A login that fails for whatever reason is final: its password may have been counted as
            wrong, and accounts are locked for that.
    """

    parallel: int = 8
    tries_max: int = 3
    again_s: float = 5.0
    dry_run: bool = False
    one_login: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= limits.INSTALL_PARALLEL_MAX or self.tries_max < 1:
            raise UsageError(f"{self.parallel} hosts at once, {self.tries_max} tries: out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Connect to a host and do its steps before ``report``, the lasting ones from ``resume`` on."""

    host: str
    attempt: int
    resume: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """Give this try up, and leave its connection."""

    host: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitReport:
    """Say so when the host's agent has come to the admin server."""

    host: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Say how far a host is. ``reason`` is why it failed, or why it is tried again."""

    host: str
    step: Step
    state: State
    reason: str = ""


Command: TypeAlias = Begin | Abandon | AwaitReport | Tell


@dataclass(slots=True, kw_only=True)
class _Host:
    name: str
    state: State = "waiting"
    step: int = 0
    """The one that is being done, or was when it failed."""
    lasting: int = CONNECTION_STEPS
    """The first of the lasting ones that is not done."""
    attempt: int = 0
    at: float = 0.0
    """When it may be tried again (waiting), or the step must be done (running)."""
    began: float = 0.0
    """When the step began."""


@dataclass(slots=True)
class Installation:
    """The run over *names*, which must differ. See the module's docstring."""

    names: Sequence[str]
    settings: InstallationSettings
    _hosts: dict[str, _Host] = field(init=False)
    _commands: deque[Command] = field(init=False, default_factory=deque)

    def __post_init__(self) -> None:
        self._hosts = {name: _Host(name=name) for name in self.names}
        if len(self._hosts) != len(self.names) or len(self._hosts) > limits.INSTALL_HOSTS_MAX:
            raise UsageError(
                f"{len(self.names)} hosts, {len(self._hosts)} different ones: not a list to install on"
            )

    # What happens ----------------------------------------------------------------------------------

    def handle_time(self, now: float) -> None:
        """Begin what may begin, and give up what took too long."""
        for host in self._hosts.values():
            if host.state == "running" and host.at <= now:
                if host.step != _REPORT:
                    self._commands.append(Abandon(host=host.name, attempt=host.attempt))
                self._fail(host, "no answer in time", final=False, now=now)
        self._begin(now)

    def handle_step_done(self, host: str, attempt: int, step: Step, now: float) -> None:
        """Take in that a step of this try is done.

        Raises:
            UsageError: it is not the one that was being done.
        """
        if (working := self._working(host, attempt)) is None:
            return
        if STEPS[working.step] != step:
            raise UsageError(f"{step} is done on {host}, where {STEPS[working.step]} was being done")
        if working.step >= CONNECTION_STEPS:
            working.lasting = working.step + 1
        following = working.lasting if working.step + 1 >= CONNECTION_STEPS else working.step + 1
        if following >= (DRY_STEPS if self.settings.dry_run else len(STEPS)):
            self._end(working, "done", "")
            self._begin(now)
        else:
            self._go_on(working, following, now)
            if following == _REPORT:
                self._commands.append(AwaitReport(host=host, attempt=attempt))
                self._begin(now)

    def handle_copying(self, host: str, attempt: int, now: float) -> None:
        """Take in that copying goes on."""
        working = self._working(host, attempt)
        if working is not None and STEPS[working.step] == "copy":
            working.at = min(now + COPY_SILENCE_S, working.began + STEP_S["copy"])

    def handle_failure(self, host: str, attempt: int, reason: str, *, final: bool, now: float) -> None:
        """Take in that this try failed; *final* if another one would fail, too, or do harm."""
        if (working := self._working(host, attempt)) is not None:
            self._fail(working, reason, final=final, now=now)
            self._begin(now)

    def handle_worker_lost(self, reason: str, now: float) -> None:
        """Take in that whoever worked on the hosts has ended; all its connections with it."""
        self._commands = deque(each for each in self._commands if not isinstance(each, Begin | Abandon))
        for host in self._hosts.values():
            if host.state == "running" and host.step != _REPORT:
                self._fail(host, reason, final=False, now=now)
        self._begin(now)

    # What to do ------------------------------------------------------------------------------------

    def poll_command(self) -> Command | None:
        """Return what to do next; None if there is nothing."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self) -> float | None:
        """Return when :meth:`handle_time` has something to do; None if that is never."""
        room = self._room() > 0
        return min(
            (
                host.at
                for host in self._hosts.values()
                if host.state == "running" or (host.state == "waiting" and room)
            ),
            default=None,
        )

    @property
    def ended(self) -> bool:
        """Whether every host is done or has failed for good."""
        return all(host.state in ("done", "failed") for host in self._hosts.values())

    @property
    def outcome(self) -> Outcome:
        """What came of it, once it has ended."""
        counts = self.statistics()
        if not counts["failed"]:
            return "done"
        return "partly" if counts["done"] else "failed"

    def statistics(self) -> Counter[State]:
        """Return how many hosts are in which state."""
        return Counter(host.state for host in self._hosts.values())

    # Helpers ---------------------------------------------------------------------------------------

    def _working(self, name: str, attempt: int) -> _Host | None:
        host = self._hosts[name]
        return host if host.state == "running" and host.attempt == attempt else None

    def _room(self) -> int:
        busy = sum(host.state == "running" and host.step != _REPORT for host in self._hosts.values())
        return self.settings.parallel - busy

    def _begin(self, now: float) -> None:
        waiting = [host for host in self._hosts.values() if host.state == "waiting" and host.at <= now]
        for host in sorted(waiting, key=lambda host: (host.at, host.attempt))[: max(0, self._room())]:
            host.attempt += 1
            host.state = "running"
            if host.lasting == _REPORT:  # all is done there, and only its report is missing
                self._commands.append(AwaitReport(host=host.name, attempt=host.attempt))
                self._go_on(host, _REPORT, now)
            else:
                self._commands.append(Begin(host=host.name, attempt=host.attempt, resume=STEPS[host.lasting]))
                self._go_on(host, 0, now)

    def _go_on(self, host: _Host, step: int, now: float) -> None:
        host.step, host.began = step, now
        host.at = now + (COPY_SILENCE_S if STEPS[step] == "copy" else STEP_S[STEPS[step]])
        self._commands.append(Tell(host=host.name, step=STEPS[step], state="running"))

    def _fail(self, host: _Host, reason: str, *, final: bool, now: float) -> None:
        step = STEPS[host.step]
        final = final or (step == "login" and self.settings.one_login)
        if final or host.attempt >= self.settings.tries_max:
            self._end(host, "failed", reason)
            return
        host.state = "waiting"
        host.at = now + self.settings.again_s * 3 ** (host.attempt - 1)
        self._commands.append(Tell(host=host.name, step=step, state="waiting", reason=reason))

    def _end(self, host: _Host, state: State, reason: str) -> None:
        host.state = state
        self._commands.append(Tell(host=host.name, step=STEPS[host.step], state=state, reason=reason))
