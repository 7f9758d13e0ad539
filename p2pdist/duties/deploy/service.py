"""The agent as a service of a machine: for systemd, and for machines that start services by ``/etc/init.d``.

The one file unpacks itself into ``TMPDIR`` at each start, 60 MB. That is a directory of its own on the disk:
``/tmp`` may be in memory, or forbid programs. What a killed agent left there goes at the next start.

What the service runs is the guard (:mod:`p2pdist.duties.deploy.guard`), and that the agent.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from p2pdist.duties.deploy.guard import GUARD

Manager: TypeAlias = Literal["systemd", "init"]

PLACE = "/opt/p2pdist-agent"
PROGRAM = f"{PLACE}/p2pdist-agent"
"""A link to the version in use; everything else names this."""
GUARD_PROGRAM = f"{PLACE}/p2pdist-agent-guard"
TRIALS = f"{PLACE}/trial*"
"""What there is of versions on trial; see :mod:`p2pdist.install.trial`."""
CONFIG = "/etc/p2pdist/agent.toml"
DATA = "/var/lib/p2pdist"
UNPACKED = "/var/cache/p2pdist"
NAME = "p2pdist-agent"
_RUN = f"{GUARD_PROGRAM} {PLACE} run --config {CONFIG}"

_UNIT = f"""\
[Unit]
Description=p2pdist agent
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
# The main process is a guard, which starts the agent, goes on to a newer version, and back where that fails.
NotifyAccess=all
# It gives signs of life; a process that hangs is ended and started again.
WatchdogSec=60
WatchdogSignal=SIGKILL
Environment=TMPDIR={UNPACKED}
ExecStart={_RUN}
KillMode=mixed
Restart=on-failure
RestartSec=5
# 4 is a refusal for want of trust (this node was revoked): starting again would not help.
RestartPreventExitStatus=2 4
StateDirectory=p2pdist
StateDirectoryMode=0700
CacheDirectory=p2pdist
CacheDirectoryMode=0700
UMask=0077
LimitNOFILE=20000

[Install]
WantedBy=multi-user.target
"""

_SCRIPT = f"""\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          {NAME}
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: p2pdist agent
### END INIT INFO
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
TMPDIR={UNPACKED}
export PATH TMPDIR
pidfile=/run/{NAME}.pid

status() {{ start-stop-daemon --stop --test --quiet --pidfile "$pidfile"; }}
start() {{
    status && return
    umask 077
    start-stop-daemon --start --quiet --background --make-pidfile --pidfile "$pidfile" --startas /bin/sh -- \\
        -c 'exec {_RUN} >/var/log/{NAME}.log 2>&1'
}}
stop() {{
    start-stop-daemon --stop --quiet --oknodo --retry TERM/20/KILL/5 --remove-pidfile --pidfile "$pidfile"
}}

case "$1" in
    start) start ;;
    stop) stop ;;
    restart | force-reload) stop && start ;;
    status) status ;;
    *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
"""

FILES: dict[Manager, tuple[tuple[str, str, str], ...]] = {
    "systemd": (
        (GUARD_PROGRAM, "755", GUARD),
        (f"/etc/systemd/system/{NAME}.service", "644", _UNIT),
    ),
    "init": (
        (GUARD_PROGRAM, "755", GUARD),
        (f"/etc/init.d/{NAME}", "755", _SCRIPT),
    ),
}
"""What makes the service: each file's path, its mode, its content."""

ENABLE: dict[Manager, str] = {
    "systemd": f"systemctl daemon-reload && systemctl --quiet enable {NAME}.service",
    "init": f"if command -v update-rc.d >/dev/null; then update-rc.d {NAME} defaults >/dev/null; fi",
}
"""Has it started with the machine from now on."""

START: dict[Manager, str] = {
    "systemd": f"systemctl start {NAME}.service && systemctl --quiet is-active {NAME}.service",
    "init": (
        f"/etc/init.d/{NAME} start && sleep 1 && {{ /etc/init.d/{NAME} status"
        f" || {{ tail -c 300 /var/log/{NAME}.log >&2; exit 1; }}; }}"
    ),
}
"""Starts it, where it does not run, and fails where it ends at once."""

STOP: dict[Manager, str] = {
    "systemd": f"if systemctl --quiet is-active {NAME}.service; then systemctl stop {NAME}.service; fi",
    "init": f"if [ -e /etc/init.d/{NAME} ]; then /etc/init.d/{NAME} stop; fi",
}
"""Stops it, where it runs."""
