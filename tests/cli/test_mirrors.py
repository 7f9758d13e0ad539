"""Releases from their vendors' mirrors at the operator's prompt; the admin server reads them itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mirror_servers import NGINX, Asked, WebAuthority, open_nginx, open_server
from serverkit import Publisher

from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.wire import api as wire

from .conftest import OpenShell

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="needs nginx")]

CONTENT = bytes(range(256)) * 8_000


@pytest.fixture
def vendor(tmp_path: Path) -> SimpleNamespace:
    (tmp_path / "www").mkdir()
    file = tmp_path / "www" / "app.bin"
    file.write_bytes(CONTENT)
    return SimpleNamespace(authority=WebAuthority(tmp_path), file=file)


async def test_the_server_reads_what_was_published_without_content_and_then_serves_it(
    tmp_path: Path, vendor: SimpleNamespace, open_shell: OpenShell
) -> None:
    async def lie(stream: object, asked: Asked) -> None:
        await stream.send_all(asked.head(len(CONTENT)) + bytes(asked.end - asked.start))  # type: ignore[attr-defined]

    settings = MirrorSettings(ca_file=vendor.authority.ca_file)
    publisher = Publisher(tmp_path / "signed")
    async with (
        open_nginx(tmp_path / "nginx", vendor.authority, vendor.file) as mirror,
        open_server(vendor.authority, lie) as liar,
        open_shell(publisher, mirrors=settings) as shell,
    ):
        publisher.add_release("1", CONTENT, mirrors=[{"url": liar, "priority": 1}, mirror.url])
        publication = publisher.write(tmp_path / "publication")
        for artifact in (publication / "artifacts").iterdir():
            artifact.unlink()
        await shell("publish", str(publication), "--mirrored")
        assert "no: it comes from its mirrors" in await shell("release", "list")
        target = "stable/app/1/app.bin"
        assert mirror.url in await shell("release", "show", target)

        shown = await shell("fetch", "app@1", "--points", "server", "--wait")
        items = {line.split()[0]: " ".join(line.split()[1:3]) for line in shown.splitlines()[1:] if line}
        assert items[target].startswith("done")
        assert "sent wrong bytes for piece" in shown
        run = await shell.json(wire.TaskRun, "fetch", "stable/app/*", "--points", "server", "--wait")
        assert [(item.subject, item.detail) for item in run.items] == [(target, "it was here already")]
        assert "served" in await shell("release", "list")
        (made,) = publisher.artifacts
        assert shell.fleet.service.home.artifact(made).read_bytes() == CONTENT
        assert mirror.sent == len(CONTENT)
        assert (await shell.json(wire.ReleaseInfo, "release", "show", target)).mirrored is False
