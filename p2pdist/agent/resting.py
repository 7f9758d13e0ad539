"""A device that keeps no link while there is nothing to do: it listens for wakes, and looks now and then.

What was counted of wakes is on the disk before one is followed: nobody can repeat one from before a restart.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.core.listening import EVERYWHERE
from p2pdist.core.resting import Rest, Resting, Rise
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.files import read_bounded, write_atomic
from p2pdist.logs import get_logger
from p2pdist.net.interfaces import read_interfaces
from p2pdist.net.rtc.addresses import host_addresses
from p2pdist.net.wakes import WakeSocket, open_wake_socket
from p2pdist.node.config import RestingTable
from p2pdist.node.member import Member
from p2pdist.trust.wakes import WakeKey
from p2pdist.wire.wakes import Wake, WakePlace

_log = get_logger()
_GOODBYE_S = 2.0


class RestingDevice:
    """Has a member rest; run it beside :meth:`~p2pdist.node.member.Member.run`.

    Args:
        member: The runtime.
        table: The configuration.
        busy: Whether the program has something to do, or has said something that is not confirmed.

    Attributes:
        refused: How many datagrams did not open, or came before.
    """

    def __init__(self, member: Member, table: RestingTable, busy: Callable[[], bool]) -> None:
        self._member = member
        self._table = table
        self._busy = busy
        home = member.home
        self._key = WakeKey(home.key, home.enrolment.server_public)
        self._path = home.state / "wake-counter"
        self._newest = _read_counter(self._path)
        self._machine: Resting
        self._port = table.port
        self._looked = trio.Event()
        self.refused = 0

    async def run(self) -> None:
        """Rest and rise until cancelled. Where wakes cannot be listened for, keep the link instead."""
        table = self._table
        self._machine = Resting(
            trio.current_time(), after_s=table.after_s, look_every_s=self._spread(table.look_every_s)
        )
        with ExitStack() as stack:
            try:
                wakes = stack.enter_context(open_wake_socket(table.host, table.port, self._key.prefix))
            except Unavailable as error:
                _log.error("wakes.off", reason=str(error))
                return
            self._port = wakes.port
            self._member.heart.place = self.place
            self._member.heartbeat_soon()
            _log.info("wakes.listening", host=table.host, port=wakes.port)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, wakes)
                await self._drive()

    def place(self) -> WakePlace:
        """Return where wakes come in, for the admin server."""
        host = self._table.host
        addresses = host_addresses() if host == EVERYWHERE else [host]
        return WakePlace(
            port=self._port,
            addresses=list(addresses)[: limits.WAKE_ADDRESSES_MAX],
            macs=[interface.mac for interface in read_interfaces()] if self._table.sleep else [],
        )

    async def _drive(self) -> None:
        machine = self._machine
        while True:
            self._looked = trio.Event()
            while (command := machine.poll_command()) is not None:
                match command:
                    case Rise(woken=woken):
                        _log.info("device.rises", woken=woken)
                        self._member.uplink.rise()
                    case Rest(sleep=sleep):
                        await self._rest(sleep=sleep)
            now = trio.current_time()
            with trio.move_on_at(machine.next_deadline(now)) as waited:
                await self._looked.wait()
            if waited.cancelled_caught:
                linked = self._member.uplink.link is not None
                busy = self._busy() or self._member.is_waiting()
                machine.handle_look(trio.current_time(), linked=linked, busy=busy)

    async def _rest(self, *, sleep: bool) -> None:
        """Say what was dealt with, so that nobody calls for it again, and end the link."""
        await self._member.heart.beat()
        with trio.move_on_after(_GOODBYE_S):
            while self._member.is_waiting() and self._machine.resting:
                await trio.sleep(limits.REST_GOODBYE_LOOK_S)
        if not self._machine.resting:
            return  # it was woken meanwhile
        _log.info("device.rests", sleep=sleep)
        self._member.uplink.rest()
        if sleep and self._table.sleep:
            await _run(self._table.sleep)

    async def _listen(self, wakes: WakeSocket) -> None:
        while True:
            wake = self._opened(await wakes.receive())
            if wake is not None:
                await self._write_down(wake)
                _log.info("device.woken", reason=wake.reason, from_sleep=wake.from_sleep)
                if self._machine.resting:
                    self._member.heart.woken = wake.counter
                self._machine.handle_woken(trio.current_time(), from_sleep=wake.from_sleep)
                self._looked.set()

    def _opened(self, datagram: bytes) -> Wake | None:
        try:
            return self._key.open(datagram, newer_than=self._newest, now=int(time.time()))
        except (TrustError, PeerError):  # not logged: whoever repeats one would fill the log
            self.refused += 1
            return None

    async def _write_down(self, wake: Wake) -> None:
        self._newest = wake.counter
        try:
            await trio.to_thread.run_sync(write_atomic, self._path, str(wake.counter).encode())
        except Unavailable as error:
            _log.warning("wake.not_recorded", reason=str(error))

    def _spread(self, seconds: float) -> float:
        """Devices that began to rest together do not look together."""
        return seconds * (0.9 + 0.2 * (int.from_bytes(self._member.node.encode()[:4], "big") % 997 / 997))


async def _run(command: Sequence[str]) -> None:
    """Run the command that sends the machine to sleep; what it says and how it ends goes to the log."""
    with trio.move_on_after(limits.SLEEP_COMMAND_S_MAX) as waited:
        try:
            done = await trio.run_process(
                list(command), stdout=subprocess.DEVNULL, capture_stderr=True, check=False
            )
        except OSError as error:
            _log.error("sleep.failed", command=command[0], reason=os.strerror(error.errno or 0))
            return
        if done.returncode:
            said = done.stderr[-limits.TEXT_CHARS_MAX :].decode("utf-8", "replace").strip()
            _log.error("sleep.failed", command=command[0], exit_code=done.returncode, said=said)
    if waited.cancelled_caught:
        _log.error("sleep.failed", command=command[0], reason="it took too long")


def _read_counter(path: Path) -> int:
    """Return the newest counter that was taken; a damaged file costs a wake that comes twice."""
    text = read_bounded(path, bytes_max=32) if path.exists() else b"0"
    return int(text) if text.isdigit() else 0
