"""Which machines an operator means, by what discovery has found or by their addresses, and their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from msgspec.structs import replace

from p2pdist import limits
from p2pdist.cli.client import Client, segment
from p2pdist.cli.inventory import all_found
from p2pdist.core.hostkeys import first_fingerprint
from p2pdist.errors import UsageError
from p2pdist.wire import api as wire
from p2pdist.wire.installing import InstallHost

NOT_KNOWN = "is not known here"
"""How the report of a host ends whose key was shown, and is not believed."""


def find_hosts(
    client: Client, words: Sequence[str], *, network: str, group: str, port: int
) -> list[InstallHost]:
    """Find the machines that *words* name, each once.

    Args:
        client: Where the inventory is.
        words: Ids and names of discovered devices; ranges (``10.1.0.0/24``) and patterns (``desk-*``) of
            those that are not managed; addresses and host names, with or without a port.
        network: The node that logs in: an address counts in its network.
        group: Where the new devices will stand; empty: where the inventory's rules put them.
        port: The port of those that name none.

    Raises:
        UsageError: a word names nobody, or it is not known where a device belongs.
    """
    devices: list[wire.FoundInfo] | None = None
    found: dict[str, InstallHost] = {}
    for word in words:
        direct = _address(word, port)
        if direct is None and devices is None:
            devices = all_found(client).devices
        chosen = _chosen(word, devices or []) if direct is None else []
        if direct is None and not chosen:
            direct = _host_name(word, port)
        if direct is not None:
            found[direct.id] = replace(direct, group=_group(group, "", direct.id))
        names = Counter(each.name for each in chosen)
        for each in chosen:
            name = each.name if names[each.name] == 1 and " " not in each.name else each.id
            address = _address_in(each, network)
            found[name] = InstallHost(
                id=name, address=address, port=port, group=_group(group, each.group, name)
            )
    if len(found) > limits.INSTALL_HOSTS_MAX:
        raise UsageError(f"these are {len(found)} hosts", hint=f"up to {limits.INSTALL_HOSTS_MAX} at once")
    return list(found.values())


def with_keys_of(run: wire.TaskRun, hosts: Sequence[InstallHost]) -> list[InstallHost]:
    """Pin for each host the key that it showed in a run, if it was good then or not known yet.

    One that showed another key than the pinned one is left as it is.
    """
    shown = {
        item.subject: first_fingerprint(item.detail)
        for item in run.items
        if item.state == "done" or item.detail.endswith(NOT_KNOWN)
    }
    return [replace(host, key=host.key or shown.get(host.id, "")) for host in hosts]


def with_known_keys(known: Callable[[str, str, int], str], hosts: Sequence[InstallHost]) -> list[InstallHost]:
    """Pin for each host the key that *known* returns for its name, address and port."""
    return [replace(host, key=host.key or known(host.id, host.address, host.port)) for host in hosts]


def run_of(client: Client, task_id: str) -> wire.TaskRun:
    """Return the newest run of a task with what it is about."""
    known = client.get(f"/tasks/{segment(task_id)}", wire.TaskInfo)
    path = f"/tasks/{segment(known.id)}/runs/{known.run}"
    return client.get(path, wire.TaskRun, items=limits.API_ROWS_MAX)


def _address(word: str, port: int) -> InstallHost | None:
    """Return the machine that a word names by an IP address."""
    text, own = _with_port(word, port)
    try:
        return InstallHost(id=word, address=str(ip_address(text)), port=own)
    except ValueError:
        return None


def _host_name(word: str, port: int) -> InstallHost:
    text, own = _with_port(word, port)
    if "." not in text or any(each in word for each in "*?[/"):
        raise UsageError(
            f"nothing that discovery has found is {word[:120]!r}",
            hint="p2pdist inventory list shows it; ranges and patterns mean what is not managed",
        )
    return InstallHost(id=word, address=text, port=own)


def _with_port(word: str, port: int) -> tuple[str, int]:
    if word.startswith("[") and "]" in word:
        host, _, rest = word[1:].partition("]")
        text = rest.removeprefix(":") if rest else str(port)
    elif word.count(":") == 1:
        host, _, text = word.partition(":")
    else:
        return word, port
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:6]) < 65_536:
        raise UsageError(f"{word[:120]!r} names no port", hint="write HOST:PORT or [ADDRESS]:PORT")
    return host, int(text)


def _chosen(word: str, devices: Sequence[wire.FoundInfo]) -> list[wire.FoundInfo]:
    unmanaged = [each for each in devices if each.state == "unmanaged"]
    network = _network(word)
    if network is not None:
        return [each for each in unmanaged if any(_within(a.address, network) for a in each.addresses)]
    if any(each in word for each in "*?["):
        return [each for each in unmanaged if any(fnmatchcase(n, word) for n in (each.name, *each.names))]
    exact = [each for each in devices if word == each.id or word in (each.name, *each.names)]
    begun = [each for each in devices if len(word) >= 4 and each.id.startswith(word)]
    found = exact or begun
    if len(found) > 1:
        named = ", ".join(each.id for each in found)
        raise UsageError(f"{word[:120]!r} could be {named}", hint="write the whole id")
    return found


def _network(word: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(word) if "/" in word else None
    except ValueError as error:
        raise UsageError(f"{word[:60]!r} is not a range ({error})", hint="write one as 10.1.0.0/24") from None


def _within(address: str, network: IPv4Network | IPv6Network) -> bool:
    return ip_address(address) in network


def _address_in(device: wire.FoundInfo, network: str) -> str:
    here = [
        each.address
        for each in device.addresses
        if each.network == network and not ip_address(each.address).is_link_local  # without its interface
    ]
    if not here:
        raise UsageError(
            f"{device.name} was not seen by the node that is to log in where it could be reached",
            hint="discover its network through that node, or name its address",
        )
    return next((each for each in here if "." in each), here[0])


def _group(chosen: str, placed: str, name: str) -> str:
    if chosen or placed:
        return chosen or placed
    raise UsageError(f"no rule says where {name} belongs", hint="say --group, or p2pdist inventory rule add")
