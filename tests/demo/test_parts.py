"""The parts of tools/demo that need no fleet."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.x509 import verification
from demo_fleet.lab import DEVICES_MAX
from demo_fleet.lab import KINDS as LAB_KINDS
from demo_fleet.loopback import loopback_network, open_loopback
from demo_fleet.network import Machine
from demo_fleet.newcomers import Arrival
from demo_fleet.options import parse_options
from demo_fleet.outcome import MirrorFacts, Outcome, PackageFacts, Refused, show
from demo_fleet.paths import DevicePath, Session, control_chains
from demo_fleet.payload import make_baits, make_packages, make_policies, make_tree
from demo_fleet.plan import LINK_PORT, DemoError, Plan
from demo_fleet.plan import make_plan as make_plan_on
from demo_fleet.polls import SitePoll
from demo_fleet.programs import open_programs
from demo_fleet.vendor import set_up_vendor
from demo_fleet.watch import Progress
from rich.console import Console

from p2pdist.config import load_config
from p2pdist.ids import parse_group, parse_product
from p2pdist.node.config import AgentConfig, SeedConfig
from p2pdist.wire import api as wire


def make_plan(directory: Path, *, sites: int, devices: int) -> Plan:
    return make_plan_on(directory, loopback_network(77, sites=sites, devices=devices))


def test_without_arguments_it_is_two_sites_of_three_devices() -> None:
    options = parse_options([])
    assert (options.network, options.sites, options.devices, options.packages) == ("loopback", 2, 3, ())
    assert not options.json
    assert not options.keep


def test_the_lab_has_a_site_of_each_of_its_kinds() -> None:
    options = parse_options(["--network", "lab"])
    assert (options.network, options.sites) == ("lab", len(LAB_KINDS))
    assert parse_options(["--network", "lab", "--devices", "1"]).devices == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sites", "0"],
        ["--devices", "many"],
        ["--package", "/nowhere"],
        ["--site", "3"],
        ["stray"],
        ["--network", "moon"],
        ["--network", "lab", "--sites", "2"],
        ["--network", "lab", "--devices", str(DEVICES_MAX + 1)],
    ],
)
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def test_every_node_has_an_address_of_its_own_that_shows_its_site(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, sites=3, devices=4)
    assert len(plan.nodes) == 3 + 12
    assert len({node.host for node in plan.nodes} | {plan.server_host}) == 16
    assert all(node.host.split(".")[2] == str(node.site) for node in plan.nodes)
    assert {node.group for node in plan.devices} == {parse_group(f"/branches/site-{k}") for k in (1, 2, 3)}


def test_two_demonstrations_at_once_are_on_different_networks() -> None:
    with (
        open_loopback(sites=1, devices=1) as first,
        open_loopback(sites=1, devices=1) as second,
    ):
        assert first.server.host != second.server.host


def test_the_configuration_that_it_writes_is_what_the_programs_read(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, sites=1, devices=1)
    (point,), (device,) = plan.points, plan.devices
    for node in plan.nodes:
        node.write_config(tmp_path / "web-ca.pem")
    seed = load_config(point.config, SeedConfig, {})
    assert (seed.point.host, seed.point.port, seed.swarm.host) == (point.host, LINK_PORT, point.host)
    assert seed.mirrors.ca_file == tmp_path / "web-ca.pem"
    agent = load_config(device.config, AgentConfig, {})
    assert (agent.link.local_host, agent.install.root, agent.node.data) == (
        device.host,
        device.root,
        device.data,
    )


@pytest.mark.slow
def test_the_tree_is_real_software_of_more_than_20_mb_that_passes_its_own_health_check(
    tmp_path: Path,
) -> None:
    package = make_tree(tmp_path / "tree")
    files = [path for path in package.source.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 20_000_000
    assert any(path.suffix == ".so" for path in files)
    check = [str(package.source / package.health_check)]
    subprocess.run(check, check=True, cwd=package.source)
    next(path for path in files if path.suffix == ".so").write_bytes(b"damaged")
    assert subprocess.run(check, check=False, cwd=package.source, capture_output=True).returncode != 0


def test_what_the_user_gives_is_distributed_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "My App (2)").mkdir()
    (tmp_path / "tool.deb").touch()
    (tmp_path / "notes.txt").touch()
    given = [tmp_path / name for name in ("My App (2)", "tool.deb", "notes.txt")]
    packages = make_packages(tmp_path, given)
    assert [package.kind for package in packages] == ["tree", "deb", "file"]
    assert len({parse_product(package.product) for package in packages}) == 3
    assert packages[2].install_path == "/opt/notes.txt"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
@pytest.mark.slow
def test_the_debian_package_is_real(tmp_path: Path) -> None:
    from demo_fleet.payload import make_deb

    package = make_deb(tmp_path)
    listed = subprocess.run(
        ["dpkg-deb", "--contents", str(package.source)], capture_output=True, text=True, check=True
    )
    assert "usr/share/p2pdist-source/p2pdist/errors.py" in listed.stdout
    assert "root/root" in listed.stdout


async def test_a_command_that_fails_says_what_it_wrote_and_what_runs_is_ended(tmp_path: Path) -> None:
    async def fail() -> str:
        here = Machine(host="127.0.0.1")
        async with open_programs(tmp_path, here, tmp_path / "home", lambda _: None) as programs:
            running = await programs.start("waits", here, "python", "-c", "import time; time.sleep(60)")
            processes.append(running.process)
            return await programs.run("python", "-c", "raise SystemExit('no archive')")

    processes: list[trio.Process] = []
    with pytest.raises(ExceptionGroup) as failed:
        await fail()
    assert failed.group_contains(DemoError, match="ended with 1:\n *no archive")
    assert processes[0].returncode == -signal.SIGTERM


def test_the_attacks_have_two_libraries_and_two_policies_to_work_on(tmp_path: Path) -> None:
    baits = make_baits(tmp_path)
    older, newer = make_policies(tmp_path)
    assert len({bait.product for bait in baits}) == 2
    assert all(bait.source.stat().st_size > 100_000 for bait in baits)
    assert older.product == newer.product
    assert older.sequence < newer.sequence
    assert older.source.read_text() != newer.source.read_text()


def test_a_device_has_ended_when_it_has_ended_with_every_deployment(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, sites=1, devices=2)
    first, second = (node.name for node in plan.devices)
    progress = Progress(devices=plan.devices, deployments=("a", "b"), sizes={})
    progress.take([_detail("a", {first: "installed", second: "installed"}), _detail("b", {})], 1.0)
    assert progress.ended_s == {}
    progress.take(
        [
            _detail("a", {first: "installed", second: "installed"}),
            _detail("b", {first: "installed", second: "fetching"}),
        ],
        2.0,
    )
    assert progress.ended_s == {first: 2.0}
    progress.take(
        [
            _detail("a", {first: "installed", second: "installed"}),
            _detail("b", {first: "installed", second: "failed"}),
        ],
        3.0,
    )
    assert progress.ended_s == {first: 2.0, second: 3.0}
    assert progress.finished
    assert progress.installed() == [first]


def test_the_json_object_has_what_programs_look_for() -> None:
    outcome = Outcome(sites=1, points=1, devices=2, installed=2, package_bytes=10)
    outcome.packages.append(PackageFacts(target="stable/a/1/a", kind="file", bytes=10))
    outcome.take_status(_status(30, {"device": {"point": 15, "device": 5}, "point": {"origin": 10}}))
    outcome.refused.append(Refused(attack="stranger", device="pc1", reason="no"))
    outcome.seconds_first, outcome.seconds_last = 1.0, 2.0
    written = json.loads(outcome.encode())
    assert written["ok"] is True
    assert written["bytes_by_source"] == {"origin": 10, "point": 15, "peer": 5, "mirror": 0}
    assert written["devices_received"] == {"origin": 0, "point": 15, "peer": 5, "mirror": 0}
    assert written["refused"] == [{"attack": "stranger", "device": "pc1", "reason": "no"}]
    wanted = {"devices", "installed", "failed", "package_bytes", "origin_bytes_sent"}
    assert wanted | {"seconds_first", "seconds_last"} <= written.keys()


def test_a_control_link_is_shown_as_the_chain_of_its_gateways() -> None:
    devices = [
        _device("server-room", "a", via=""),
        _device("branch", "b", via="a"),
        _device("pc", "c", via="b"),
        _device("straight", "d", via=""),
        _device("away", "e", via="b", state="offline"),
    ]
    chains = control_chains(devices)
    assert chains["pc"] == ["pc", "branch", "server-room", "server"]
    assert chains["straight"] == ["straight", "server"]
    assert "away" not in chains


def test_the_json_object_tells_the_path_of_each_device() -> None:
    outcome = Outcome(network="lab", sites=1, points=1, devices=1)
    outcome.paths.append(
        DevicePath(
            device="pc",
            network="symmetric",
            control=["pc", "point", "server"],
            session=Session(
                path="punched", reason="it lets through", opened_ms=80.0, moved_s=0.4, round_trip_ms=4.5
            ),
            content={"point": 10, "peer": 5},
        )
    )
    written = json.loads(outcome.encode())
    assert written["network"] == "lab"
    assert written["paths"] == [
        {
            "device": "pc",
            "network": "symmetric",
            "control": ["pc", "point", "server"],
            "session": {
                "path": "punched",
                "reason": "it lets through",
                "opened_ms": 80.0,
                "moved_s": 0.4,
                "round_trip_ms": 4.5,
            },
            "content": {"point": 10, "peer": 5},
        }
    ]


def test_the_json_object_tells_of_polls_of_new_devices_and_of_the_vendors_mirror() -> None:
    outcome = Outcome(network="lab", sites=1, points=1, devices=1)
    outcome.discovered.append(
        SitePoll(
            site=2, network="symmetric", point="site2-point", state="done", asked=254, found=2,
            managed=["pc"], unmanaged=["new"], seconds=1.5,
        )
    )  # fmt: skip
    outcome.arrivals.append(
        Arrival(device="new", network="symmetric", address="192.168.1.13", via="site2-point", way="point")
    )
    outcome.mirror = MirrorFacts(
        target="stable/codec/7/codec", bytes=10, mirror_sent=10, readers=3, points=4, origin_sent=0,
        installed=2, devices=2,
    )  # fmt: skip
    written = json.loads(outcome.encode())
    assert written["discovered"][0]["managed"] == ["pc"]
    assert (written["arrivals"][0]["device"], written["arrivals"][0]["way"]) == ("new", "point")
    assert (written["mirror"]["origin_sent"], written["mirror"]["mirror_sent"]) == (0, 10)


def test_the_summary_says_what_the_points_have_done_besides_seeding() -> None:
    outcome = Outcome(network="lab", sites=1, points=1, devices=1, left_out=["no mirror: no nginx"])
    outcome.arrivals += [
        Arrival(
            device=name, network="symmetric", address="192.168.1.13", via="site2-point", state=state,
            seconds=8.5, way=way, woken_ms=120,
        )
        for name, state, way in (
            ("one", "done", "point"), ("two", "done", "straight"), ("three", "failed", ""),
        )
    ]  # fmt: skip
    outcome.mirror = MirrorFacts(
        target="stable/codec/7/codec", bytes=10_000, mirror_sent=12_000, readers=3, points=4, origin_sent=7,
        installed=2, devices=2,
    )  # fmt: skip
    console = Console(width=120, file=io.StringIO())
    show(outcome, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for words in (
        "2 of 3 bare machines over SSH through their points, the last after 8.5 s",
        "its mirror sent 12.0 kB, 1.20 copies for 4 points; the admin server 7 B",
        "1 of 2 resting devices by UDP from their points, within 120 ms",
        "no mirror: no nginx",
    ):
        assert words in shown


def test_a_mirrors_certificate_is_of_the_web_authority_that_points_are_told(tmp_path: Path) -> None:
    file = tmp_path / "codec.so"
    file.write_bytes(b"codec")
    vendor = set_up_vendor(tmp_path / "vendor", Machine(host="192.0.2.7"), [file])
    assert vendor.url(file) == "https://192.0.2.7/codec.so"
    certificate, ca = (
        x509.load_pem_x509_certificate((vendor.place / name).read_bytes())
        for name in ("web.pem", "web-ca.pem")
    )
    store = verification.Store([ca])
    subject = x509.IPAddress(ip_address("192.0.2.7"))
    verification.PolicyBuilder().store(store).build_server_verifier(subject).verify(certificate, [])


def test_what_a_mirror_has_sent_is_counted_by_who_asked(tmp_path: Path) -> None:
    vendor = set_up_vendor(tmp_path / "vendor", Machine(host="192.0.2.7"), [])
    assert vendor.sent() == {}
    lines = ['192.0.2.1 206 100 "GET /x HTTP/1.1" "bytes=0-99"', '192.0.2.1 206 50 "GET /x HTTP/1.1" "-"']
    (vendor.place / "access").write_text("\n".join([*lines, '192.0.2.2 404 9 "GET /y HTTP/1.1" "-"']) + "\n")
    assert vendor.sent() == {"192.0.2.1": 150, "192.0.2.2": 9}


def test_what_the_origin_sent_is_what_came_from_it_and_what_came_in_vain() -> None:
    outcome = Outcome(sites=1, points=1, devices=2, package_bytes=10)
    outcome.take_status(
        _status(17, {"point": {"origin": 9}}, unattributed={"point": 1}, wasted={"point": 4, "device": 1})
    )
    assert (outcome.unattributed_bytes, outcome.wasted_bytes) == (
        {"point": 1, "device": 0},
        {"point": 4, "device": 1},
    )
    assert (outcome.origin_copies, outcome.origin_bytes_lost) == (1.7, 2)


@pytest.mark.parametrize(
    "change", [{"installed": 1, "failed": 1}, {"problems": ["a stranger got in"]}, {"installed": 0}]
)
def test_the_outcome_is_not_good_when_a_device_did_not_end_as_it_should(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"sites": 1, "points": 1, "devices": 2, "installed": 2, **change}
    assert not Outcome(**fields).ok  # type: ignore[arg-type]


def _status(
    origin_sent: int,
    received: dict[str, dict[str, int]],
    *,
    unattributed: dict[str, int] | None = None,
    wasted: dict[str, int] | None = None,
) -> wire.Status:
    return wire.Status(
        fleet="demo",
        node="",
        version="",
        started=0,
        addresses=[],
        devices=2,
        devices_online=2,
        devices_revoked=0,
        points=1,
        points_online=1,
        releases=1,
        deployments_active=1,
        refusals=0,
        metadata_expires=None,
        received=received,
        unattributed=unattributed or {},
        wasted=wasted or {},
        origin_sent_bytes=origin_sent,
        disk_free_bytes=0,
        withdrawn_bytes=0,
        problems=[],
    )


def _device(
    name: str, node: str, *, via: str, state: Literal["online", "offline"] = "online"
) -> wire.DeviceInfo:
    return wire.DeviceInfo(
        node=node,
        name=name,
        group="/",
        role="device",
        state=state,
        via=via,
        platform="",
        program="",
        enrolled=0,
        last_seen=None,
        certificate_expires=0,
        disk_free_bytes=0,
        installed={},
        clones=0,
        revoked_reason="",
    )


def _detail(deployment: str, stages: dict[str, str]) -> wire.DeploymentDetail:
    return wire.DeploymentDetail(
        deployment=wire.DeploymentInfo(
            id=deployment,
            target="stable/a/1/a",
            group="/branches",
            created=0,
            created_by="operator",
            stopped=None,
            devices=2,
            stages={},
        ),
        finished=False,
        devices=[
            wire.DeviceDeployment(
                deployment=deployment,
                target="stable/a/1/a",
                node=name,
                name=name,
                online=True,
                stage=stage,
                fraction=1.0,
                rate_bytes_per_s=0,
                sources=0,
                received={},
                reason="",
                exit_code=None,
                output="",
                seconds=0.0,
                updated=None,
            )
            for name, stage in stages.items()
        ],
    )


def test_a_device_is_halfway_when_it_has_half_of_all_bytes(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, sites=1, devices=1)
    (name,) = (node.name for node in plan.devices)
    sizes = {"stable/a/1/a": 300, "small": 100}
    progress = Progress(devices=plan.devices, deployments=("a", "b"), sizes=sizes)
    small = _detail("b", {name: "installed"})
    small.devices[0] = msgspec.structs.replace(small.devices[0], target="small")
    large = _detail("a", {name: "fetching"})
    large.devices[0] = msgspec.structs.replace(large.devices[0], fraction=0.0)
    progress.take([large, small], 1.0)
    assert progress.share(progress.states[name]) == 0.25
