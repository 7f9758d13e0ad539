"""Commands: following vendors' repositories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter

from p2pdist import limits
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.tasks import begin
from p2pdist.cli.when import AT_ONCE, When
from p2pdist.duties.kinds import check_work
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.wire.following import AnySource, AptSource, DirectorySource, Follow

T = TypeVar("T", bound=msgspec.Struct)

_KEYRING_BYTES_MAX = limits.MIB  # keyrings of distributions have 60 KB

follow = App(
    name="follow", help="Find out about new versions in vendors' repositories, once or on a schedule."
)


@follow.command(name="apt")
def follow_apt(
    url: Annotated[str, Parameter(name="URL")],
    suite: Annotated[str, Parameter(name="SUITE")],
    /,
    *components: Annotated[str, Parameter(name="COMPONENT")],
    key: Annotated[list[Path], Parameter(negative_iterable=())],
    package: Annotated[list[str], Parameter(negative_iterable=())],
    architecture: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    via: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    when: When = AT_ONCE,
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Follow packages of an apt repository; `p2pdist proposal list` shows what is new there.

        p2pdist follow apt https://vendor.example/debian stable main \\
            --key vendor.gpg --package "tool*" --every "0 5 * * *" --zone Europe/Berlin

    What is found is only proposed: nothing is distributed before the fleet's own keys have signed it.

    Parameters
    ----------
    url
        The repository, as in sources.list.
    suite
        The suite, such as stable; one that ends in / is a flat repository, without components.
    components
        Such as main.
    key
        A file with the OpenPGP keys that sign the repository, as in signed-by; can be given several times.
    package
        A package's name, or a pattern such as "tool*"; can be given several times.
    architecture
        amd64 (default), arm64; can be given several times. Packages for all of them are found with each.
    via
        The distribution point that looks, or `server` (default) for the admin server itself. A point needs
        the duty `seed` in its grant.
    wait
        Watch until it has ended. Exit code 6 unless it has found what is wanted.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    source = _checked(
        AptSource,
        url=url,
        suite=suite,
        components=list(components),
        architectures=architecture or ["amd64"],
        packages=package,
    )
    work = _work(source, key)
    begin(common, work, via or ["server"], when=when, wait=wait, timeout=timeout)


@follow.command(name="directory")
def follow_directory(
    url: Annotated[str, Parameter(name="URL")],
    pattern: Annotated[str, Parameter(name="PATTERN")],
    /,
    *,
    product: str,
    sums: str = "",
    signature: str = "",
    key: Annotated[list[Path] | None, Parameter(negative_iterable=())] = None,
    via: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    when: When = AT_ONCE,
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Follow one product in a directory of a web server; `p2pdist proposal list` shows what is new there.

        p2pdist follow directory https://vendor.example/tool/ "tool-{version}-linux.run" \\
            --product tool --sums SHA256SUMS --signature SHA256SUMS.asc --key vendor.asc

    The newest version counts, as numbers are ordered. What is found is only proposed: nothing is distributed
    before the fleet's own keys have signed it.

    Parameters
    ----------
    url
        The directory, ending in /.
    pattern
        A file's name with {version} in it, which stands for digits and dots; {version:any} stands for
        letters, + ~ - and _ as well. One * stands for anything.
    product
        What the product is called in the fleet.
    sums
        The file in it that lists SHA-256 checksums. Without it the page of links is read.
    signature
        The file with the OpenPGP signature of that list; without it the list itself must be signed.
    key
        A file with the OpenPGP keys that may sign the list; can be given several times.
    via
        The distribution point that looks, or `server` (default) for the admin server itself. A point needs
        the duty `seed` in its grant.
    wait
        Watch until it has ended. Exit code 6 unless it has found what is wanted.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    source = _checked(
        DirectorySource, url=url, pattern=pattern, product=product, sums=sums, signature=signature
    )
    work = _work(source, key or [])
    begin(common, work, via or ["server"], when=when, wait=wait, timeout=timeout)


def _work(source: AnySource, files: Sequence[Path]) -> Follow:
    """Put the work together, with the keys out of their files. Raises UsageError."""
    from p2pdist.duties.follow.openpgp import split_keys

    keys = [
        key
        for path in files
        for key in split_keys(read_bounded(path, bytes_max=_KEYRING_BYTES_MAX), str(path))
    ]
    if len(keys) > limits.FOLLOW_KEYS_MAX:
        raise UsageError(f"{len(keys)} keys are more than {limits.FOLLOW_KEYS_MAX}", hint="give fewer")
    work = Follow(source=source, keys=keys)
    check_work(work)
    return work


def _checked(kind: type[T], **fields: Any) -> T:
    """Check what was typed as the server would, and say which word of it is wrong."""
    try:
        return msgspec.convert({**fields, "source": kind.__struct_config__.tag}, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"this cannot be followed: {error}", hint="p2pdist follow --help") from None
