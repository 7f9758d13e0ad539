"""Which files a directory of a web server offers: by its page of links, or by a list of checksums. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from p2pdist import limits
from p2pdist.core.debversions import version_key
from p2pdist.errors import PeerError, UsageError
from p2pdist.ids import parse_product
from p2pdist.wire.following import DirectorySource, Offer, checked_offer

_FILE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._+~@=-]{0,254}\Z")
_SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?([^/\r\n]{1,255})\r?\Z")
_PLACEHOLDER = re.compile(r"\{version(?::any)?\}")
_NUMBERS, _ANY_VERSION = r"[0-9][0-9.]{0,62}(?<=[0-9])", r"[0-9][0-9A-Za-z.+~_-]{0,63}"
_WILDCARDS_MAX = 1  # each multiplies what a match costs by the length of a name


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return what finds the group ``version`` in a file's name.

    Raises:
        UsageError: it is no pattern with one version in it.
    """
    found = _PLACEHOLDER.findall(pattern)
    rest = _PLACEHOLDER.sub("", pattern)
    if len(found) != 1 or any(c in rest for c in "{}:") or rest.count("*") > _WILDCARDS_MAX:
        raise UsageError(
            f"{pattern[:80]!r} is not a pattern",
            hint="write it as tool-{version}-linux.run; one * in it stands for anything",
        )
    version = _ANY_VERSION if found[0] == "{version:any}" else _NUMBERS
    before, _, after = pattern.partition(found[0])
    literal = [".*".join(map(re.escape, part.split("*"))) for part in (before, after)]
    return re.compile(f"{literal[0]}(?P<version>{version}){literal[1]}\\Z")


def check_directory(source: DirectorySource, *, signed: bool) -> None:
    """Check what the type of a directory does not. Raises UsageError."""
    compile_pattern(source.pattern)
    parse_product(source.product)
    if not source.url.endswith("/"):
        raise UsageError(
            f"{source.url[:80]} is not a directory", hint="write its address with a / at the end"
        )
    if signed and not source.sums:
        raise UsageError("a signature is over a list of checksums", hint="say which: --sums SHA256SUMS")
    if source.signature and not signed:
        raise UsageError("a signature needs the key that may have made it", hint="--key FILE")
    if not signed and not source.url.startswith("https://"):
        raise UsageError(
            "a directory over plain HTTP needs a signed list of checksums",
            hint="--sums, --signature and --key",
        )


def parse_links(page: str, url: str) -> list[str]:
    """Return the names of the files right in the directory at *url* that its page links to.

    Links to elsewhere (other servers, other directories, parameters) are not looked at.

    Raises:
        PeerError: there are too many.
    """
    parser = _Links()
    parser.feed(page)
    parser.close()
    own = urlsplit(url)
    names: dict[str, None] = {}
    for link in parser.found:
        try:
            parts = urlsplit(urljoin(url, link))
        except ValueError:
            continue
        name = unquote(parts.path[len(own.path) :])
        beside = (parts.scheme, parts.netloc) == (own.scheme, own.netloc) and not parts.query
        if beside and parts.path.startswith(own.path) and _FILE.match(name):
            names[name] = None
    return list(names)


def parse_sums(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a list as ``sha256sum`` writes it names. Other lines are left out.

    Raises:
        PeerError: one file has two, or there are too many.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        match = _SUM.match(line)
        if match is None or not _FILE.match(match[2]):
            continue
        sha256 = match[1].lower()
        if found.setdefault(match[2], sha256) != sha256:
            raise PeerError(f"the list of checksums has two for {match[2]}")
        if len(found) > limits.LISTING_NAMES_MAX:
            raise PeerError(f"the list of checksums names more than {limits.LISTING_NAMES_MAX} files")
    return found


def newest_file(
    source: DirectorySource, names: Iterable[str], sums: Mapping[str, str], *, signed: bool
) -> Offer | None:
    """Return the file with the newest version (by Debian's order) among *names*; None when none fits."""
    pattern = compile_pattern(source.pattern)
    fitting = [(name, match["version"]) for name in names if (match := pattern.match(name))]
    if not fitting:
        return None
    name, version = max(fitting, key=lambda each: (version_key(_ordered(each[1])), each[0]))
    return checked_offer(
        product=source.product,
        version=version,
        url=source.url + quote(name),
        file=name,
        sha256=sums.get(name, ""),
        signed=signed,
    )


def _ordered(version: str) -> str:
    return version.replace("_", "+").rstrip("-") or "0"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag == "a" and name == "href" and value:
                self.found.append(value[: limits.FOLLOW_URL_CHARS_MAX])
        if len(self.found) > limits.LISTING_NAMES_MAX:
            raise PeerError(f"the directory's page has more than {limits.LISTING_NAMES_MAX} links")
