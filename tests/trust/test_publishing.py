"""From drafts to a publication: whole or not at all, and accepted by a stock client first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from ceremony import add, found, grant, sign_all, sign_and_publish
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from workshop import now, signer

from p2pdist.errors import P2PDistError, TrustError, Unavailable, UsageError
from p2pdist.ids import ChannelName
from p2pdist.trust import changes, releases
from p2pdist.trust.exchange import SigningRequest, import_signatures
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.publication import OnlineRepository
from p2pdist.trust.publicationdir import _exchange, read_metadata
from p2pdist.trust.publishing import publish, verify_publication
from p2pdist.trust.repository import Repository
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

NODE = IdentityKey.generate().node


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return found(tmp_path / "repository")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "publication"


def test_what_is_signed_is_published_and_believed(repository: Repository, out: Path, tmp_path: Path) -> None:
    path = add(repository, "1.0")
    grant(repository, NODE)
    published = sign_and_publish(repository, out)
    assert set(published.catalog.releases) == {path}
    assert published.artifacts_added == 1
    catalog = verify_publication(out, now=now())
    assert catalog == published.catalog
    assert set(catalog.grants) == {NODE}
    release = catalog.releases[path]
    assert (out / "artifacts" / release.info_hash).read_bytes() == b"content1.0"
    assert (out / "torrents" / f"{release.info_hash}.torrent").exists()
    assert not repository.load().drafts


def test_a_plain_tuf_client_downloads_a_grant_from_the_directory(
    repository: Repository, out: Path, tmp_path: Path
) -> None:
    """No code of ours on the client's side: files by URL, as any web server would give them."""

    class Files(FetcherInterface):
        def _fetch(self, url: str):  # type: ignore[no-untyped-def]
            path = out / url.removeprefix("dir:///")
            if not path.exists():
                from tuf.api.exceptions import DownloadHTTPError

                raise DownloadHTTPError(str(path), 404)
            return iter((path.read_bytes(),))

    grant(repository, NODE)
    add(repository, "1.0")
    sign_and_publish(repository, out)
    client = Updater(
        str(tmp_path),
        "dir:///metadata/",
        target_dir=str(tmp_path),
        target_base_url="dir:///grants/",
        fetcher=Files(),
        config=UpdaterConfig(),
        bootstrap=(out / "metadata" / "1.root.json").read_bytes(),
    )
    info = client.get_targetinfo(f"points/{NODE}.grant")
    assert info is not None
    info.path = info.path.removeprefix("points/")
    assert NODE.encode() in Path(client.download_target(info)).read_bytes()


def test_nothing_is_published_before_everybody_has_signed(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    with pytest.raises(UsageError, match=r"signatures are missing for .*the channel 'stable'"):
        sign_and_publish(repository, out, "alice", "bob", "lead", "ops", "dev")
    assert not out.exists()
    sign_and_publish(repository, out, "rel")


def test_what_is_complete_can_go_ahead_of_what_is_not(repository: Repository, out: Path) -> None:
    first = add(repository, "1.0")
    sign_and_publish(repository, out)
    second = add(repository, "2.0")
    grant(repository, NODE)
    with repository.change() as state:
        sign_all(state, "ops", "dev")
    published = publish(repository, out, signer("online"), now=now(), leave_unfinished=True)
    assert published.unfinished == ("channel-stable",)
    assert set(published.catalog.grants) == {NODE}
    assert set(published.catalog.releases) == {first}
    assert set(repository.load().drafts) == {"channel-stable"}
    assert set(sign_and_publish(repository, out, "rel").catalog.releases) == {first, second}


def test_a_publication_that_clients_would_refuse_is_not_written(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    before = read_metadata(out)
    # A new channel is delegated, but its own role is not signed: a client would miss it.
    with repository.change() as state:
        changes.add_channel(
            state, ChannelName("beta"), changes.KeySet(keys=(signer("dev").public_key,), threshold=1), now()
        )
        sign_all(state, "lead")
    with pytest.raises(P2PDistError):
        publish(repository, out, signer("online"), now=now(), leave_unfinished=True)
    assert read_metadata(out) == before
    assert set(repository.load().drafts) == {"targets", "channel-beta"}


def test_a_malformed_target_is_found_before_it_is_published(repository: Repository, out: Path) -> None:
    path = add(repository, "1.0")
    with repository.change() as state:
        file = state.open("channel-stable", now()).targets[path]
        file.unrecognized_fields["custom"] = {"product": "nonsense"}
    with pytest.raises(TrustError, match="clients would not believe 1 of what is signed"):
        sign_and_publish(repository, out)
    assert not out.exists()


def test_another_online_key_is_told_apart(repository: Repository, out: Path) -> None:
    with repository.change() as state:
        sign_all(state)
    with pytest.raises(UsageError, match="names online"):
        publish(repository, out, signer("mallory"), now=now())


def test_a_missing_or_altered_artifact_stops_the_publication(repository: Repository, out: Path) -> None:
    path = add(repository, "1.0")
    with repository.change() as state:
        sign_all(state)
    info_hash = state.latest("channel-stable").signed.targets[path].custom["info_hash"]
    artifact = repository.artifacts / info_hash
    content = artifact.read_bytes()
    artifact.chmod(0o644)
    artifact.write_bytes(content[:-1] + b"X")
    with pytest.raises(TrustError, match="is not what was signed"):
        publish(repository, out, signer("online"), now=now())
    artifact.unlink()
    with pytest.raises(UsageError, match="not in the repository"):
        publish(repository, out, signer("online"), now=now())
    assert not (out / "metadata").exists()
    artifact.write_bytes(content)
    publish(repository, out, signer("online"), now=now())


def test_what_is_withdrawn_leaves_the_publication(repository: Repository, out: Path) -> None:
    path = add(repository, "1.0")
    grant(repository, NODE)
    sign_and_publish(repository, out)
    with repository.change() as state:
        releases.remove_release(state, path, now())
        changes.remove_grant(state, NODE, now())
    assert not sign_and_publish(repository, out).catalog.releases
    for name in ("artifacts", "torrents", "grants"):
        assert list((out / name).iterdir()) == []


def test_publishing_again_only_makes_the_online_roles_fresh(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    first = sign_and_publish(repository, out).catalog
    again = publish(repository, out, signer("online"), now=now())
    assert again.artifacts_added == 0
    assert again.catalog.versions == {**first.versions, "snapshot": 2, "timestamp": 2}
    assert again.catalog.releases == first.releases


def test_a_directory_of_something_else_is_left_alone(
    repository: Repository, out: Path, tmp_path: Path
) -> None:
    with repository.change() as state:
        sign_all(state)
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        publish(repository, out, signer("online"), now=now())
    other = found(tmp_path / "other", third="mallory")
    (out / "thesis.tex").unlink()
    sign_and_publish(repository, out)
    with pytest.raises(UsageError, match="another fleet"):
        sign_and_publish(other, out)


def test_a_removed_channel_can_come_back(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    with repository.change() as state:
        changes.remove_channel(state, ChannelName("stable"), now())
    assert sign_and_publish(repository, out).catalog.channels == ()
    with repository.change() as state:
        changes.add_channel(
            state, ChannelName("stable"), changes.KeySet(keys=(signer("dev").public_key,), threshold=1), now()
        )
    add(repository, "2.0")
    published = sign_and_publish(repository, out).catalog
    assert published.channels == ("stable",)
    assert len(published.releases) == 1


def test_a_client_follows_a_rotation_of_every_key(repository: Repository, out: Path, tmp_path: Path) -> None:
    path = add(repository, "1.0")
    sign_and_publish(repository, out)
    root = (out / "metadata" / "1.root.json").read_bytes()
    client = Verifier(tmp_path / "client", root)
    client.update(Bundle(files=read_metadata(out)), now=now())
    replacements = {
        "root": "alice",
        "targets": "lead",
        "points": "ops",
        "channel-stable": "dev",
        "online": "online",
    }
    with repository.change() as state:
        for role, name in replacements.items():
            changes.change_keys(state, role, add=[signer(f"{name}2").public_key], remove=[name], now=now())
        sign_all(state, "alice", "bob", "carol", "alice2", "lead2", "ops2", "dev2", "rel")
    publish(repository, out, signer("online2"), now=now())
    catalog = client.update(Bundle(files=read_metadata(out)), now=now())
    assert catalog.versions["root"] == 2
    assert path in catalog.releases


def test_a_removed_key_is_worth_nothing_any_more(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    with repository.change() as state:
        changes.change_keys(state, "channel-stable", remove=["dev"], threshold=1, now=now())
    sign_and_publish(repository, out)
    add(repository, "2.0")
    with repository.change() as state, pytest.raises(UsageError, match="no say"):
        state.sign("channel-stable", signer("dev"))


def test_the_server_takes_the_publication_in(repository: Repository, out: Path, tmp_path: Path) -> None:
    path = add(repository, "1.0")
    sign_and_publish(repository, out)
    files = read_metadata(out)
    server = OnlineRepository(tmp_path / "server", files["1.root.json"], signer("online"))
    assert path in server.ingest(files, now=now()).releases
    second = add(repository, "2.0")
    sign_and_publish(repository, out)
    assert second in server.ingest(read_metadata(out), now=now()).releases


# Signing on several machines ---------------------------------------------------------------------


def test_signatures_are_collected_over_an_air_gap(repository: Repository, out: Path, tmp_path: Path) -> None:
    add(repository, "1.0")
    for people in (("alice", "lead", "dev"), ("bob", "ops", "rel")):
        SigningRequest.of(repository).save(tmp_path / "request.json")
        there = SigningRequest.load(tmp_path / "request.json")
        sign_all(there.state, *people)
        there.save(tmp_path / "signed.json")
        taken = import_signatures(repository, SigningRequest.load(tmp_path / "signed.json")).taken
        assert sum(map(len, taken.values())) == 3
    assert len(publish(repository, out, signer("online"), now=now()).catalog.releases) == 1


def test_two_people_sign_at_the_same_time(repository: Repository, tmp_path: Path) -> None:
    requests = [SigningRequest.of(repository), SigningRequest.of(repository)]
    for request, name in zip(requests, ("alice", "bob"), strict=True):
        sign_all(request.state, name)
        assert import_signatures(repository, SigningRequest.decode(request.encode())).taken
    assert repository.load().standing("root").complete


def test_signatures_on_a_draft_that_was_changed_meanwhile_are_refused(repository: Repository) -> None:
    request = SigningRequest.of(repository)
    sign_all(request.state, "dev")
    add(repository, "1.0")
    with pytest.raises(TrustError, match="changed after it was exported"):
        import_signatures(repository, request)


def test_a_request_that_lies_about_what_is_published_is_refused(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    add(repository, "2.0")
    request = SigningRequest.of(repository)
    # The liar hides a release in what he calls published, so that the differences do not show it.
    document = request.state.published["channel-stable"]
    document.signed.targets["stable/evil/1/f"] = next(iter(document.signed.targets.values()))
    request.state.published_files["channel-stable"] = document.to_bytes()
    with pytest.raises(TrustError, match="do not sign"):
        SigningRequest.decode(request.encode())


def test_a_request_of_another_fleet_is_recognised_by_the_trust_root(
    repository: Repository, out: Path, tmp_path: Path
) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    add(repository, "2.0")
    request = SigningRequest.decode(SigningRequest.of(repository).encode())
    request.check_trusted_root((out / "metadata" / "1.root.json").read_bytes())
    other = found(tmp_path / "other", third="mallory")
    sign_and_publish(other, tmp_path / "elsewhere")
    with pytest.raises(TrustError, match="does not follow"):
        request.check_trusted_root((tmp_path / "elsewhere" / "metadata" / "1.root.json").read_bytes())


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":"p2pdist signing request 2"}', b"\xff\xfe"])
def test_other_files_are_no_requests(data: bytes) -> None:
    with pytest.raises(UsageError, match="not a signing request"):
        SigningRequest.decode(data)


def test_there_is_nothing_to_export_without_drafts(repository: Repository, out: Path) -> None:
    sign_and_publish(repository, out)
    with pytest.raises(UsageError, match="no draft"):
        SigningRequest.of(repository)


# Accidents ---------------------------------------------------------------------------------------


def test_a_change_that_fails_leaves_the_repository_as_it_was(repository: Repository) -> None:
    before = repository.load().draft_files()

    def fail_half_way() -> None:
        with repository.change() as state:
            changes.renew(state, "targets", now() + timedelta(days=9))
            state.sign("targets", signer("nobody"))

    with pytest.raises(UsageError):
        fail_half_way()
    assert repository.load().draft_files() == before


def test_two_programs_do_not_change_the_repository_at_once(repository: Repository) -> None:
    with repository.change(), pytest.raises(Unavailable, match="in use"), repository.change():
        pass


def test_a_repository_is_not_made_over_another(repository: Repository) -> None:
    with pytest.raises(UsageError, match="already"):
        found(repository.directory)
    with pytest.raises(UsageError, match="no signing repository"):
        Repository.open(repository.directory / "keys")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "metadata" / "timestamp.json").unlink(), "missing in the bundle"),
        (lambda out: (out / "metadata" / "1.root.json").unlink(), "holds no publication"),
        (lambda out: next((out / "torrents").iterdir()).unlink(), "cannot be read"),
        (lambda out: next((out / "artifacts").iterdir()).unlink(), "could not be read"),
        (lambda out: next((out / "grants").iterdir()).write_bytes(b"{}"), "not what was signed"),
    ],
)
def test_a_damaged_publication_does_not_verify(
    repository: Repository,
    out: Path,
    damage,
    message: str,  # type: ignore[no-untyped-def]
) -> None:
    add(repository, "1.0")
    grant(repository, NODE)
    sign_and_publish(repository, out)
    damage(out)
    with pytest.raises(P2PDistError, match=message):
        verify_publication(out, now=now())


def test_an_artifact_altered_on_disk_does_not_verify(repository: Repository, out: Path) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    artifact = next((out / "artifacts").iterdir())
    artifact.chmod(0o644)
    artifact.write_bytes(b"content1.1")
    with pytest.raises(TrustError, match="SHA-256"):
        verify_publication(out, now=now())


_PUBLISHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from workshop import now, signer
from p2pdist.trust.publishing import publish
from p2pdist.trust.repository import Repository
print("ready", flush=True)
sys.stdin.readline()
publish(Repository.open(Path(sys.argv[2])), Path(sys.argv[3]), signer("online"), now=now())
"""


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(12))
def test_killed_at_any_moment_the_old_publication_or_the_new_one_is_there_whole(
    repository: Repository, out: Path, tmp_path: Path, round_: int
) -> None:
    old = add(repository, "1.0")
    sign_and_publish(repository, out)
    new = add(repository, "2.0")
    with repository.change() as state:
        changes.change_keys(state, "online", add=[signer("spare").public_key], now=now())
        sign_all(state)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _PUBLISHER, here, str(repository.directory), str(out)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.stdin.write(b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + random.Random(round_).uniform(0, 0.12)
    while time.monotonic() < deadline and process.poll() is None:
        os.sched_yield()
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    releases = set(verify_publication(out, now=now()).releases)
    assert releases in ({old}, {old, new})
    # Whoever comes next finishes the work.
    assert set(publish(repository, out, signer("online"), now=now()).catalog.releases) == {old, new}
    assert set(verify_publication(out, now=now()).releases) == {old, new}
    leftovers = [path.name for path in out.rglob(".*")]
    assert leftovers == []


_STEPS = 36


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, _STEPS + 1))
def test_cut_off_after_any_rename_the_old_publication_or_the_new_one_is_there(
    repository: Repository, out: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The same, exhaustively: every operation that changes a name on disk is the last one once."""

    class Cut(BaseException):
        pass

    old = add(repository, "1.0")
    sign_and_publish(repository, out)
    new = add(repository, "2.0")
    with repository.change() as state:
        sign_all(state)
    left = step

    def cutting(original):  # type: ignore[no-untyped-def]
        def operation(*arguments: object, **keywords: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Cut
            return original(*arguments, **keywords)

        return operation

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "symlink_to", "hardlink_to"):
            patch.setattr(Path, name, cutting(getattr(Path, name)))
        patch.setattr("p2pdist.trust.publicationdir._exchange", cutting(_exchange))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with contextlib.suppress(Cut):
            publish(repository, out, signer("online"), now=now())
    if step == _STEPS:
        assert left > 0  # the work is over before: every step of it was the last one in some round
    assert set(verify_publication(out, now=now()).releases) in ({old}, {old, new})
    assert set(publish(repository, out, signer("online"), now=now()).catalog.releases) == {old, new}
    assert set(verify_publication(out, now=now()).releases) == {old, new}


def test_without_an_exchange_of_directories_the_timestamp_changes_last(
    repository: Repository, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, "1.0")
    sign_and_publish(repository, out)
    add(repository, "2.0")
    monkeypatch.setattr("p2pdist.trust.publicationdir._exchange", lambda *_: False)
    order: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    sign_and_publish(repository, out)
    assert order[-1] == "timestamp.json"
    assert len(verify_publication(out, now=now()).releases) == 2


def test_content_is_hashed_with_progress(repository: Repository, out: Path) -> None:
    add(repository, "1.0", b"x" * 3_000_000)
    with repository.change() as state:
        sign_all(state)
    seen: list[tuple[str, int, int]] = []
    publish(repository, out, signer("online"), now=now(), progress=lambda *step: seen.append(step))
    assert seen[-1] == ("checking stable/app/1.0/app.bin", 3_000_003, 3_000_003)
    assert len(seen) == 3


def test_the_same_content_is_stored_once(repository: Repository) -> None:
    add(repository, "1.0")
    name = next(repository.artifacts.iterdir())
    assert hashlib.sha256(name.read_bytes()).hexdigest() == hashlib.sha256(b"content1.0").hexdigest()
    assert len(list(repository.artifacts.iterdir())) == 1
    assert list(repository.incoming.iterdir()) == []
