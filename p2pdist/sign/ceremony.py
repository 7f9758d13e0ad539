"""Who may sign what: init, channel, rotate, revoke key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from securesystemslib.signer import Key

from p2pdist.errors import UsageError
from p2pdist.ids import parse_channel, parse_fleet
from p2pdist.sign.keyring import NEW_KEYS, Keyring, NewKeyOptions
from p2pdist.sign.options import OPTIONS, Options, changed, time_now
from p2pdist.trust import changes
from p2pdist.trust.changes import KeySet
from p2pdist.trust.keys import SealedKeyFile, load_public_key
from p2pdist.trust.refusals import role_words
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import Lives, SigningState, parse_role

channel_app = App(
    name="channel",
    help="""Add and remove channels: lines of releases, each with signing keys of its own.""",
)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LifeOptions:
    """How long signed roles are valid."""

    root_days: int = 365
    """How long the trust root is valid."""

    targets_days: int = 90
    """How long the list of channels, each channel and the seed grants are valid."""

    snapshot_days: int = 7
    """How long a snapshot is valid; the admin server renews it in time."""

    timestamp_hours: int = 24
    """How long a timestamp is valid: a device that hears nothing for longer stops believing."""

    def lives(self) -> Lives:
        """Return them as the repository keeps them. Raises UsageError if one is no sensible time."""
        seconds = {
            "root_s": self.root_days * 86_400,
            "targets_s": self.targets_days * 86_400,
            "snapshot_s": self.snapshot_days * 86_400,
            "timestamp_s": self.timestamp_hours * 3_600,
        }
        try:
            return msgspec.convert(seconds, Lives)
        except msgspec.ValidationError as error:
            raise UsageError(f"a life is too short or too long ({error})") from None


LIVES = LifeOptions()


def init(
    *,
    fleet: str,
    root: Annotated[list[str], Parameter(alias="-r")],
    threshold: int,
    targets: list[str] | None = None,
    targets_threshold: int | None = None,
    points: list[str] | None = None,
    points_threshold: int | None = None,
    online: str = "online",
    lives: LifeOptions = LIVES,
    keys: NewKeyOptions = NEW_KEYS,
    options: Options = OPTIONS,
) -> None:
    """Hold the key ceremony: make a repository, and a sealed key file for each person.

    The root keys say who may sign everything else; THRESHOLD of them must sign together. A name makes a
    new key in the repository's directory `keys`, a path takes the public key that somebody made on a
    machine of their own (`p2pdist-sign key new`). The online key is for the admin server: it signs which
    versions are current, and cannot add a release.

    Nothing is signed yet: everybody looks (`diff`) and signs (`sign`) what the ceremony prepared.

        p2pdist-sign -C /srv/sign init --fleet acme --threshold 2 \\
            --root alice --root bob --root carol

    Called again after an interruption, it takes the keys that are there already.

    Parameters
    ----------
    fleet
        The fleet's name: a-z, 0-9 and '-'. It is part of the names of its swarms.
    root
        A person who holds a root key: a name, or a file with a public key. Once for each.
    threshold
        How many of the root keys must sign together.
    targets
        Who says which channels there are, and who signs for them. By default the holders of root keys.
    targets_threshold
        How many of them must sign together.
    points
        Who grants machines the right to act as distribution points. By default the holders of root keys.
    points_threshold
        How many of them must sign together.
    online
        The admin server's key.
    """
    parse_fleet(fleet)
    for people, count in ((root, threshold), (targets, targets_threshold), (points, points_threshold)):
        if people is not None and count is not None and not 1 <= count <= len(people):
            raise UsageError(f"{count} of {len(people)} keys cannot sign", hint="choose another threshold")
    if (options.repository / "current").is_symlink():
        raise UsageError(f"{options.repository} holds a repository already", hint="choose another directory")
    ceremony = _Ceremony(Repository(options.repository), keys)
    holders = ceremony.key_set(root, threshold, "root")
    state = changes.found_fleet(
        parse_fleet(fleet),
        root=holders,
        targets=ceremony.key_set(targets, targets_threshold, "targets", holders),
        points=ceremony.key_set(points, points_threshold, "seed grants", holders),
        online=ceremony.key(online, "admin server"),
        lives=lives.lives(),
        now=time_now(),
    )
    Repository.create(options.repository, state)
    lines = [f"the repository of the fleet {fleet} is in {options.repository}"]
    lines += [f"  made the key {options.repository / 'keys' / name}.key" for name in ceremony.made]
    changed(options, state, lines, repository=str(options.repository), fleet=fleet, keys_made=ceremony.made)


class _Ceremony:
    """Finds people's keys, and makes those that are not there. ``made`` are their names."""

    def __init__(self, repository: Repository, options: NewKeyOptions) -> None:
        self._keyring = Keyring(repository)
        self._options = options
        self.made: list[str] = []

    def key_set(
        self, people: Sequence[str] | None, threshold: int | None, purpose: str, default: KeySet | None = None
    ) -> KeySet:
        if people is None:
            assert default is not None
            return KeySet(keys=default.keys, threshold=threshold or default.threshold)
        return KeySet(keys=tuple(self.key(text, purpose) for text in people), threshold=threshold or 1)

    def key(self, text: str, purpose: str) -> Key:
        path = Path(text)
        if path.is_file():
            return load_public_key(path)
        if "/" in text:
            raise UsageError(f"there is no file {text}", hint="give a name, or a file with a public key")
        path = self._keyring.path_of(text)
        if not path.exists():
            passphrase = self._options.new_passphrase(text, purpose)
            SealedKeyFile.create(text, passphrase, kdf=self._options.kdf).save(path)
            self.made.append(text)
        return load_public_key(path)


@channel_app.command(name="add")
def channel_add(
    name: str,
    /,
    *,
    key: list[str],
    threshold: int = 1,
    options: Options = OPTIONS,
) -> None:
    """Add a channel with keys of its own.

    Its name is the first part of its releases' paths, and of its swarm's name.

        p2pdist-sign channel add stable --key dev --key release --threshold 2

    Parameters
    ----------
    name
        The channel's name: a-z, 0-9 and '-'.
    key
        Who signs its releases: the name of a key here or in use, or a file with a public key.
    threshold
        How many of them must sign each change.
    """
    repository = options.open()
    with repository.change() as state:
        keys = KeySet(keys=_resolve(repository, key, state), threshold=threshold)
        changes.add_channel(state, parse_channel(name), keys, time_now())
    changed(options, state, [f"the channel {name} is added"], channel=name)


@channel_app.command(name="remove")
def channel_remove(name: str, /, *, options: Options = OPTIONS) -> None:
    """Remove a channel with all its releases. Devices keep what they have installed.

    Signed and published it takes effect:

        p2pdist-sign channel remove beta

    Parameters
    ----------
    name
        The channel's name.
    """
    with options.open().change() as state:
        changes.remove_channel(state, parse_channel(name), time_now())
    changed(options, state, [f"the channel {name} is removed"], channel=name)


def rotate(
    role: str,
    /,
    *,
    add: list[str] | None = None,
    remove: list[str] | None = None,
    threshold: int | None = None,
    options: Options = OPTIONS,
) -> None:
    """Change who signs: add keys, remove keys, change how many are needed.

    A new trust root needs the signatures of the old keys and of the new ones. What the removed keys have
    signed is opened to be signed again.

        p2pdist-sign rotate root --add dave.pub --remove alice
        p2pdist-sign rotate stable --threshold 2
        p2pdist-sign rotate online --add online2 --remove online

    Parameters
    ----------
    role
        root, targets, points, online, or a channel's name.
    add
        A key that gets a say: a name here, or a file with a public key.
    remove
        A key that loses it, by its name or the beginning of its id.
    threshold
        How many must sign from now on.
    """
    repository = options.open()
    name = role if role == "online" else parse_role(role)
    with repository.change() as state:
        opened = changes.change_keys(
            state,
            name,
            add=_resolve(repository, add or [], state),
            remove=remove or [],
            threshold=threshold,
            now=time_now(),
        )
    words = role_words(name) if name != "online" else "the online roles"
    lines = [f"the keys of {words} change"]
    lines += [f"{role_words(other)} must be signed again" for other in opened]
    changed(options, state, lines, role=name, opened=opened)


def revoke_key(
    key: str,
    /,
    *,
    replace: str | None = None,
    threshold: int | None = None,
    options: Options = OPTIONS,
) -> None:
    """Take a lost or stolen key out of every role in which it has a say.

    Let another key take its place where too few would be left:

        p2pdist-sign revoke key alice --replace dave.pub

    Parameters
    ----------
    key
        The key's name, or the beginning of its id.
    replace
        A key that takes its place: a name here, or a file with a public key.
    threshold
        How many must sign from now on in these roles; needed if too few keys would be left.
    """
    repository = options.open()
    with repository.change() as state:
        added = _resolve(repository, [replace] if replace is not None else [], state)
        roles = changes.roles_of_key(state, key)
        opened: list[str] = []
        for role in roles:
            present = {k.keyid for k in changes.current_keys(state, role).keys}
            new = [k for k in added if k.keyid not in present]
            if threshold is None:
                _check_enough(state, role, len(present) - 1 + len(new))
            opened += changes.change_keys(
                state, role, add=new, remove=[key], threshold=threshold, now=time_now()
            )
    names = ", ".join(role_words(role) if role != "online" else "the online roles" for role in roles)
    changed(options, state, [f"{key} loses its say in {names}"], key=key, roles=roles, opened=opened)


def _check_enough(state: SigningState, role: str, left: int) -> None:
    needed = changes.current_keys(state, role).threshold
    if left < needed:
        words = role_words(role) if role != "online" else "the snapshot and the timestamp"
        fewer = f"; or let fewer sign: --threshold {left}" if left else ""
        raise UsageError(
            f"of the keys of {words} {left} would be left, and {needed} must sign",
            hint=f"let another key take its place: --replace NAME (key new NAME makes one){fewer}",
        )


def _resolve(repository: Repository, texts: Sequence[str], state: SigningState) -> tuple[Key, ...]:
    keyring = Keyring(repository)
    return tuple(keyring.resolve(text, state) for text in texts)
