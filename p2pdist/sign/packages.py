"""From a file or a directory tree to a release: its name, its platform, how it is installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from msgspec import Meta

from p2pdist import limits
from p2pdist.documents import read_toml, refuse_unknown_keys
from p2pdist.errors import UsageError
from p2pdist.files import storage_error
from p2pdist.ids import ChannelName, SwarmName, TargetPath, parse_product, parse_target
from p2pdist.install.archive import pack_tree
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import (
    AgentRecipe,
    AnyRecipe,
    CommandRecipe,
    DebRecipe,
    FileRecipe,
    Mirror,
    TreeRecipe,
)
from p2pdist.trust.publishing import Progress
from p2pdist.trust.repository import Repository
from p2pdist.trust.requirements import check_platform, parse_mirror, parse_prerequisite

How = Literal["tree", "deb", "command", "file", "agent"]

_CHUNK_BYTES = limits.MIB
_AGENT = "p2pdist-agent"
_DEB_PLATFORMS = {
    "amd64": "linux-x86_64",
    "arm64": "linux-aarch64",
    "i386": "linux-i686",
    "armhf": "linux-armv7l",
    "ppc64el": "linux-ppc64le",
    "riscv64": "linux-riscv64",
    "s390x": "linux-s390x",
    "all": "linux",
}
_DPKG_DEB_TIMEOUT_S = 60


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says about one package. Empty fields are found out where that is possible.

    It is also one table ``[[release]]`` of a manifest; ``path`` is relative to the manifest then.
    """

    path: str
    product: str = ""
    version: str = ""
    sequence: Annotated[int, Meta(ge=1)] | None = None
    platform: str = ""
    install: How | None = None
    health_check: str = ""
    keep: int = 1
    command: str = ""
    check: str = ""
    expect: list[int] = msgspec.field(default_factory=lambda: [0])
    to: str = ""
    mode: str = "0644"
    reload: str = ""
    timeout_s: int | None = None
    requires: list[str] = msgspec.field(default_factory=list)
    mirrors: list[str | Mirror] = msgspec.field(default_factory=list)
    deltas: bool | None = None
    piece_bytes: int | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """The options of ``add``."""

    product: str = ""
    """The product's name; a Debian package brings its own."""

    version: str = ""
    """The version, as people call it."""

    sequence: int | None = None
    """The number by which devices tell newer from older; by default one more than the highest."""

    platform: str = ""
    """any (default), linux, or with the architecture, such as linux-x86_64 or linux-aarch64; a Debian
    package brings its own."""

    install: How | None = None
    """How it is installed; found out from the package and the options below where it is left out. agent is
    p2pdist's own, as the one file that tools/build-agent makes."""

    health_check: str = ""
    """tree: a command that must succeed in the new version, or the old one comes back."""

    keep: int = 1
    """tree: how many older versions stay on the device."""

    command: str = ""
    """command: what is run; {artifact} stands for the package's path. No shell is involved."""

    check: str = ""
    """command: exits 0 if the release is installed already; makes an interrupted command safe to repeat."""

    expect: tuple[int, ...] = (0,)
    """command: exit codes that mean success."""

    to: str = ""
    """file: its path on the device."""

    mode: str = "0644"
    """file: its permissions, in octal."""

    reload: str = ""
    """file: a command that runs afterwards; if it fails the old file comes back."""

    timeout: int | None = None
    """How long the installation may take, in seconds; agent: how long it may run before it has reported."""

    requires: tuple[str, ...] = ()
    """PRODUCT>=SEQUENCE of the same channel that must be installed first. Can be given several times."""

    mirror: tuple[str, ...] = ()
    """An HTTPS address from which distribution points may fetch the same content, byte for byte: of a tree
    that is the archive that `add` makes. Can be followed by ,priority=N (0 to 255, by default 100; the lowest
    is asked first) and ,region=R (asked first by points of this region). Can be given several times; signed,
    but not used yet by this version."""

    deltas: Annotated[bool | None, Parameter(negative="--no-deltas")] = None
    """Make deltas from the last three releases of the product and platform, and keep those that save 30 %:
    devices that have an older one fetch them instead. Contents of up to 256 MiB each are in memory for it. By
    default where no mirror is named: deltas come from the admin server."""

    def shared(self) -> Package:
        """Return what these options say about every package."""
        return Package(
            path="",
            product=self.product,
            version=self.version,
            sequence=self.sequence,
            platform=self.platform,
            install=self.install,
            health_check=self.health_check,
            keep=self.keep,
            command=self.command,
            check=self.check,
            expect=list(self.expect),
            to=self.to,
            mode=self.mode,
            reload=self.reload,
            timeout_s=self.timeout,
            requires=list(self.requires),
            mirrors=list(self.mirror),
            deltas=self.deltas,
        )


PACKAGE = PackageOptions()


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A package whose content is in the repository's scratch, ready to be taken."""

    package: Package
    target: TargetPath
    recipe: AnyRecipe
    torrent: MadeTorrent
    content: Path


def read_manifest(path: Path) -> list[Package]:
    """Read a manifest: TOML with one ``[[release]]`` for each package.

    Raises:
        UsageError: it cannot be read, a table in it is not a package, or has a key that is none.
    """
    raw = read_toml(path, bytes_max=4 * limits.MIB)
    refuse_unknown_keys(raw, _Manifest, path)
    try:
        releases = msgspec.convert(raw, _Manifest, strict=True).release
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is not a manifest ({error})", hint="write one [[release]] each") from None
    return [msgspec.structs.replace(r, path=str(path.parent / r.path)) for r in releases]


class _Manifest(msgspec.Struct):
    release: Annotated[list[Package], Meta(min_length=1, max_length=1_000)]


@contextmanager
def prepare(
    repository: Repository, channel: ChannelName, swarm: SwarmName, package: Package, progress: Progress
) -> Iterator[Prepared]:
    """Bring a completed package into the repository's scratch; what is not taken from there vanishes.

    Raises:
        UsageError: its content cannot be a release's.
        Unavailable: the disk is full or fails.
    """
    source = Path(package.path)
    try:
        with tempfile.TemporaryDirectory(dir=repository.incoming) as scratch:
            content = Path(scratch) / "content"
            if source.is_dir():
                progress(f"packing {source.name}", 0, 1)
                tree = pack_tree(source, content)
                recipe = _recipe(package, tree.unpacked_bytes, tree.entries)
                name = f"{package.product}-{package.version}.tar.zst"
            else:
                recipe = _recipe(package, 0, 0)
                _copy(source, content, progress)
                name = re.sub(r"[^A-Za-z0-9._+~=@-]", "_", source.name).lstrip("._+~=@-") or "content"
            target = parse_target(f"{channel}/{package.product}/{package.version}/{name}")
            progress(f"hashing {name}", 0, content.stat().st_size)
            torrent = make_torrent(content, swarm=swarm, piece_bytes=package.piece_bytes)
            progress(f"hashing {name}", torrent.length, torrent.length)
            yield Prepared(package=package, target=target, recipe=recipe, torrent=torrent, content=content)
    except OSError as error:
        raise storage_error(f"{source} could not be taken in", error) from error


def _copy(source: Path, content: Path, progress: Progress) -> None:
    total = source.stat().st_size
    done = 0
    with source.open("rb") as reader, content.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            progress(f"copying {source.name}", done, total)


def completed(package: Package) -> Package:
    """Fill in what can be found out, and check everything that can be checked without reading the content.

    Raises:
        UsageError: there is no such file or directory, or the fields do not make a release.
    """
    source = Path(package.path)
    if not source.is_file() and not source.is_dir():
        what = "is neither a file nor a directory" if source.exists() else "does not exist"
        raise UsageError(f"{source} {what}", hint="check the path")
    how = package.install or _guessed(package, source)
    if (how == "tree") != source.is_dir():
        kind = "a directory" if source.is_dir() else "a file"
        raise UsageError(
            f"{source} is {kind}", hint="a tree is made from a directory, the others from a file"
        )
    changes: dict[str, str] = {"install": how}
    if how == "deb":
        product, version, architecture = _control_fields(source)
        changes["product"] = package.product or product
        changes["version"] = package.version or version.replace(":", "+")
        changes["platform"] = package.platform or _DEB_PLATFORMS.get(architecture, "linux")
    else:
        changes["platform"] = package.platform or "any"
    if how == "agent":
        changes["product"] = package.product or _AGENT
        if package.platform in ("", "any"):
            raise UsageError(
                f"{source.name} runs on one kind of machine only", hint="say --platform linux-x86_64, or such"
            )
    package = msgspec.structs.replace(package, **changes)
    if not package.product or not package.version:
        raise UsageError(f"{source.name} needs a product and a version", hint="say --product and --version")
    parse_product(package.product)
    check_platform(package.platform)
    for text in package.requires:
        parse_prerequisite(text)
    mirrors = [parse_mirror(str(each)) for each in package.mirrors]
    package = msgspec.structs.replace(package, mirrors=mirrors)
    _recipe(package, 0, 0)
    return package


def _guessed(package: Package, source: Path) -> How:
    if source.is_dir():
        return "tree"
    if package.command:
        return "command"
    if package.to:
        return "file"
    if source.suffix == ".deb":
        return "deb"
    raise UsageError(
        f"it does not show how {source.name} is installed",
        hint="say --command '{artifact} --quiet' if it is run, or --to /path if it is a file to be replaced",
    )


def _recipe(package: Package, unpacked_bytes: int, entries: int) -> AnyRecipe:
    timeout = {} if package.timeout_s is None else {"timeout_s": package.timeout_s}
    fields: dict[str, object]
    kind: type[AnyRecipe]
    if package.install == "tree":
        kind = TreeRecipe
        fields = {"unpacked_bytes": unpacked_bytes, "entries": entries, "keep": package.keep}
        fields["health_check"] = _arguments("health check", package.health_check)
    elif package.install == "deb":
        kind = DebRecipe
        name, version, architecture = _control_fields(Path(package.path))
        fields = {"package": name, "version": version, "architecture": architecture}
    elif package.install == "command":
        kind = CommandRecipe
        if not package.command:
            raise UsageError("a command package needs a command", hint="--command '{artifact} --silent'")
        fields = {"arguments": _arguments("command", package.command)}
        fields["check"] = _arguments("check", package.check)
        fields["expected_exit_codes"] = package.expect
    elif package.install == "agent":
        kind = AgentRecipe
        fields = {}
    else:
        kind = FileRecipe
        if not package.to:
            raise UsageError("a file package needs its place on the device", hint="--to /etc/app.conf")
        fields = {"path": package.to, "mode": _mode(package.mode)}
        fields["reload"] = _arguments("reload", package.reload)
    try:
        recipe: AnyRecipe = msgspec.convert({"kind": package.install, **fields, **timeout}, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{Path(package.path).name} cannot be installed so: {error}") from None
    return recipe


def _arguments(what: str, text: str) -> list[str]:
    """Split a command as a shell would, without being one."""
    try:
        return shlex.split(text)
    except ValueError as error:
        reason = str(error).lower()  # "No closing quotation"
        raise UsageError(f"the {what} {text!r} is no command: {reason}", hint="close the quote") from None


def _control_fields(path: Path) -> tuple[str, str, str]:
    """Read name, version and architecture of a Debian package."""
    if shutil.which("dpkg-deb") is None:
        raise UsageError("Debian packages need dpkg-deb on this machine", hint="install the package dpkg")
    form = "--showformat=${Package}\t${Version}\t${Architecture}"
    try:
        ran = subprocess.run(
            ["dpkg-deb", "--show", form, str(path.absolute())],
            capture_output=True,
            timeout=_DPKG_DEB_TIMEOUT_S,
            check=True,
        )
        name, version, architecture = ran.stdout.decode().split("\t")
    except (OSError, subprocess.SubprocessError, ValueError):
        raise UsageError(f"{path} is not a Debian package", hint="or say --install command") from None
    return name, version, architecture


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise UsageError(f"{text!r} is not a file mode", hint="write it in octal: 0644") from None


def packages_of(paths: Sequence[Path], manifest: Path | None, shared: Package) -> list[Package]:
    """Say what is to be added: the paths with the fields of the command line, or a manifest's tables.

    Raises:
        UsageError: neither or both are given, or one name is given to several packages.
    """
    if bool(paths) == (manifest is not None):
        raise UsageError("name packages, or a manifest", hint="p2pdist-sign add CHANNEL PATH…")
    if manifest is not None:
        return read_manifest(manifest)
    if len(paths) > 1 and (shared.product or shared.version or shared.sequence):
        raise UsageError(
            "several packages cannot share one product, version or sequence number",
            hint="add them one by one, or write a manifest: --manifest FILE",
        )
    return [msgspec.structs.replace(shared, path=str(path)) for path in paths]
