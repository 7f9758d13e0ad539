"""The options that every command has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from p2pdist.cli.client import Client
from p2pdist.cli.output import Format
from p2pdist.cli.profile import Target, find_target
from p2pdist.errors import UsageError


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Which server, as whom, and how to print.

    Attributes:
        server: The API's URL; by default what `p2pdist login` stored.
        token_file: A file with an API token.
        ca: The certificate of the fleet's authority.
        output: `table` for people, `json` for programs.
    """

    server: Annotated[str | None, Parameter(help="the API's URL [P2PDIST_SERVER]")] = None
    token_file: Annotated[Path | None, Parameter(help="a file with a token [P2PDIST_TOKEN_FILE]")] = None
    ca: Annotated[Path | None, Parameter(help="the fleet authority's certificate [P2PDIST_CA]")] = None
    output: Annotated[Format, Parameter(name=["--output", "-o"], help="table or json")] = "table"

    def client(self) -> Client:
        """Open the API. Raises UsageError when it is not known which."""
        return Client(self.target())

    def target(self) -> Target:
        """Return which server, as whom. Raises UsageError when it is not known."""
        return find_target(server=self.server, token_file=self.token_file, ca=self.ca)


DEFAULT = Common()


def check_new(to: Path | None) -> None:
    """Check before a token is made that its file can be: what is there may be the only copy of another."""
    if to is not None and to.exists():
        raise UsageError(f"{to} exists already", hint="choose another file, or remove that one")
