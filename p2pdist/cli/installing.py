"""Commands: the agent onto machines that have none."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from msgspec.structs import replace

from p2pdist import limits
from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.hosts import NOT_KNOWN, find_hosts, run_of, with_keys_of, with_known_keys
from p2pdist.cli.output import errors, table
from p2pdist.cli.secrets import ask, first_line, interactive, seal_for, secret_file
from p2pdist.cli.tasks import begin, begin_again, follow
from p2pdist.cli.when import AT_ONCE
from p2pdist.config import load_config
from p2pdist.core.hostkeys import first_fingerprint
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.node.config import AgentConfig
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.wire import api as wire
from p2pdist.wire.installing import Install, InstallHost, InstallSecrets

agent = App(name="agent", help="The agent on machines that have none yet.")

_PRODUCT = "p2pdist-agent"
_FIRST_USE = "first-use"
_KEYS_S = 600.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to log in.

    Attributes:
        user: The user to log in as.
        key: A file with a private key, as OpenSSH or PEM writes it.
        agent: Use the SSH agent of the node that logs in (its environment's SSH_AUTH_SOCK), not one here.
        ask_password: Ask for the user's password.
        password_file: A file whose first line is the user's password.
        ask_passphrase: Ask for what opens the private key.
        passphrase_file: A file whose first line opens the private key.
        sudo: Become root with sudo, by default with the user's password where it asks for one.
        ask_sudo_password: Ask for the password for sudo.
        sudo_password_file: A file whose first line is the password for sudo.
    """

    user: str = "root"
    key: Path | None = None
    agent: Annotated[bool, Parameter(negative=())] = False
    ask_password: Annotated[bool, Parameter(negative=())] = False
    password_file: Path | None = None
    ask_passphrase: Annotated[bool, Parameter(negative=())] = False
    passphrase_file: Path | None = None
    sudo: Annotated[bool, Parameter(negative=())] = False
    ask_sudo_password: Annotated[bool, Parameter(negative=())] = False
    sudo_password_file: Path | None = None

    def secrets(self) -> InstallSecrets:
        """Read what is in files, and ask for the rest. Raises UsageError when that cannot be had."""
        if not (self.key or self.agent or self.ask_password or self.password_file):
            raise UsageError(
                "nothing is given to log in with",
                hint="say --key, --agent, --ask-password or --password-file",
            )
        password = _secret(self.password_file, self.ask_password, f"the password of {self.user}")
        sudo = _secret(self.sudo_password_file, self.ask_sudo_password, "the password for sudo")
        return InstallSecrets(
            password=password,
            key=secret_file(self.key) if self.key is not None else "",
            passphrase=_secret(self.passphrase_file, self.ask_passphrase, "the passphrase of the key"),
            sudo_password=(sudo or password) if self.sudo else "",
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """Which keys of hosts are believed. Those that are not known are shown, and you are asked.

    Attributes:
        accept_keys: `first-use` for whatever hosts show, or a task, such as a dry run, for the keys that they
            showed there.
        known_hosts: A file like ~/.ssh/known_hosts with the keys that the hosts must show.
    """

    accept_keys: str = ""
    known_hosts: Path | None = None

    @property
    def first_use(self) -> bool:
        """Whether whatever a host shows is believed."""
        return self.accept_keys == _FIRST_USE

    def pin(self, client: Client, hosts: list[InstallHost]) -> list[InstallHost]:
        """Pin the keys of hosts that are known."""
        if self.known_hosts is not None:
            from p2pdist.duties.deploy.knownhosts import known_key  # half a second

            data = read_bounded(self.known_hosts, bytes_max=limits.KNOWN_HOSTS_BYTES_MAX)
            hosts = with_known_keys(partial(known_key, data.decode(errors="replace")), hosts)
        if self.accept_keys and not self.first_use:
            hosts = with_keys_of(run_of(client, self.accept_keys), hosts)
        return hosts


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What the machines get.

    Attributes:
        release: The agent as one file: a target or product@version; by default the newest of p2pdist-agent.
        config: A configuration file for the agents; one that a machine has already is left alone.
        address: HOST:PORT where the new devices find the fleet; can be given several times. By default the
            gateway that logs in, then where that has found the fleet itself.
    """

    release: str = ""
    config: Path | None = None
    address: Annotated[list[str] | None, Parameter(negative_iterable=())] = None

    def configuration(self) -> str:
        """Return the content of the configuration file. Raises UsageError if an agent would not take it."""
        if self.config is None:
            return ""
        load_config(self.config, AgentConfig, {})
        return read_bounded(self.config, bytes_max=limits.INSTALL_CONFIG_BYTES_MAX).decode()


LOGIN, KEYS, SOFTWARE = Login(), HostKeys(), Software()


@agent.command(name="install")
def agent_install(
    *hosts: Annotated[str, Parameter(name="DEVICE|ADDRESS")],
    via: str = "",
    group: str = "",
    login: Login = LOGIN,
    port: int = 22,
    keys: HostKeys = KEYS,
    software: Software = SOFTWARE,
    parallel: int = 8,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    wait: bool = False,
    timeout: str = "2h",
    common: Common = DEFAULT,
) -> None:
    """Log in to machines over SSH, install the agent as a service, and wait until each is a managed device.

    A distribution point that stands beside them does it; it needs the duties `deploy` and `seed`. Passwords
    and keys are sealed here, for that node alone; they are kept in memory, and gone with the run.

    Parameters
    ----------
    hosts
        A discovered device (its id or name in `p2pdist inventory list`); a range such as 10.1.0.0/24 or a
        pattern such as 'desk-*' for those of them that are not managed; an address or a host name, with a
        port if need be.
    via
        The distribution point that logs in, or `server` for the admin server itself.
    group
        Where the new devices will stand; by default where the inventory's rules put them.
    port
        The port of SSH on hosts that are named without one.
    parallel
        At most so many machines at once, up to 32.
    dry_run
        Log in and look, and change nothing: shows the hosts' keys, their platforms, and their free space.
    wait
        Watch until it has ended. Exit code 6 unless every host is done.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    if not hosts or not via:
        raise UsageError("it takes hosts, and --via, the distribution point that logs in to them")
    secrets = login.secrets()
    with common.client() as client:
        node = client.get(f"/nodes/{segment(via)}/key", wire.NodeKey).node
        chosen = find_hosts(client, hosts, network=node, group=group, port=port)
        if not chosen:
            raise UsageError("nothing that is not managed yet is in that", hint="p2pdist inventory list")
        work = Install(
            hosts=keys.pin(client, chosen),
            target=_target(client, software.release),
            addresses=software.address or (_addresses(client) if via == "server" else []),
            config=software.configuration(),
            user=login.user,
            sudo=login.sudo,
            ssh_agent=login.agent,
            first_use=keys.first_use,
            parallel=parallel,
            dry_run=dry_run,
        )
        if not work.first_use and not dry_run and interactive():
            work = replace(work, hosts=_asked(client, work, via))
    begin(common, work, [via], when=AT_ONCE, wait=wait, timeout=timeout, secrets=secrets)


@agent.command(name="retry")
def agent_retry(
    task_id: Annotated[str, Parameter(name="TASK")],
    /,
    *,
    login: Login = LOGIN,
    wait: bool = False,
    timeout: str = "2h",
    common: Common = DEFAULT,
) -> None:
    """Begin another run of an installation, which goes on where the one before stopped on each host.

    The hosts, the user, and whether sudo is used are those of the task.

    Parameters
    ----------
    task_id
        What `p2pdist task list` shows.
    wait
        Watch until it has ended. Exit code 6 unless every host is done.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    with common.client() as client:
        work = client.get(f"/tasks/{segment(task_id)}", wire.TaskInfo).work
    if not isinstance(work, Install):
        raise UsageError(f"{task_id} installs no agents", hint=f"p2pdist task run {task_id}")
    asked = dataclasses.replace(login, user=work.user, sudo=work.sudo, agent=work.ssh_agent)
    begin_again(common, task_id, asked.secrets(), wait=wait, timeout=timeout)


def _asked(client: Client, work: Install, via: str) -> list[InstallHost]:
    """Find out the keys that are not known, and ask whether they are the right ones."""
    unknown = [host for host in work.hosts if not host.key]
    if not unknown:
        return list(work.hosts)
    look = replace(work, dry_run=True, hosts=unknown)
    boxes = seal_for(client, look, [via], InstallSecrets())  # the keys come before any of them is needed
    made = client.post("/tasks", wire.TaskInfo, wire.NewTask(work=look, nodes=[via], secrets=boxes))
    run = follow(client, made, _KEYS_S)
    client.delete(f"/tasks/{segment(made.id)}", wire.Done)
    shown = [item for item in run.items if item.detail.endswith(NOT_KNOWN)]
    if not shown:
        return list(work.hosts)
    rows = [(item.subject, first_fingerprint(item.detail)) for item in shown]
    errors().print(table(("host", "its key"), rows))
    sys.stderr.write("Are these the keys of these hosts? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError(
            "these keys are not believed",
            hint="there, ssh-keygen -lf /etc/ssh/ssh_host_*.pub shows them",
        )
    return with_keys_of(run, work.hosts)


def _target(client: Client, text: str) -> str:
    if text:
        return client.get(f"/releases/{segment(text)}", wire.ReleaseInfo).target
    known = [each for each in client.get("/releases", wire.ReleaseList).releases if each.product == _PRODUCT]
    newest = max((each.sequence for each in known), default=0)
    found = sorted(each.target for each in known if each.sequence == newest)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no signed release is of {_PRODUCT}",
            hint="make the file with tools/build-agent, sign and publish it, or name another: --release",
        )
    raise UsageError(f"the agent could be {', '.join(found)}", hint="name one: --release")


def _addresses(client: Client) -> list[str]:
    return list(EnrolmentBundle.decode(client.get_bytes("/enrolment")).addresses)


def _secret(path: Path | None, asked: bool, what: str) -> str:
    if path is not None:
        return first_line(path)
    return ask(what) if asked else ""
