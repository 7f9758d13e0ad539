"""Key files: key new, public, list, passphrase."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App
from rich.console import Console

from p2pdist.errors import UsageError
from p2pdist.files import write_atomic
from p2pdist.ids import parse_product
from p2pdist.sign.keyring import NEW_KEYS, Keyring, NewKeyOptions, PassphraseOptions
from p2pdist.sign.options import OPTIONS, Options
from p2pdist.trust import changes
from p2pdist.trust.keys import PublicKeyFile, SealedKeyFile, key_name
from p2pdist.trust.refusals import role_words

key_app = App(
    name="key",
    help="""Make and look at signing keys.

    A key file is sealed with a passphrase (Argon2id, then XSalsa20-Poly1305). Only its public half is ever
    handed to others: `key public alice` prints it.""",
)


@key_app.command(name="new")
def key_new(
    name: str,
    /,
    *,
    file: Path | None = None,
    keys: NewKeyOptions = NEW_KEYS,
    options: Options = OPTIONS,
) -> None:
    """Make a key, sealed with a passphrase.

    On the machine of the person who holds it, without a repository:

        p2pdist-sign key new dave --file dave.key
        p2pdist-sign key public dave.key --to dave.pub    # hand out this one

    Parameters
    ----------
    name
        Whose key it is.
    file
        Where it is written; by default in the repository's directory `keys`.
    """
    parse_product(name)
    path = file if file is not None else Keyring(options.open()).path_of(name)
    if path.exists():
        raise UsageError(f"{path} exists already", hint="choose another name; a key is never overwritten")
    sealed = SealedKeyFile.create(name, keys.new_passphrase(name, "signing"), kdf=keys.kdf)
    sealed.save(path)

    def render(console: Console) -> None:
        console.print(f"made {path}: {key_name(sealed.public_key)}", markup=False)

    options.answer({"file": str(path), "name": name, "keyid": sealed.keyid}, render)


@key_app.command(name="public")
def key_public(key: str, /, *, to: Path | None = None, options: Options = OPTIONS) -> None:
    """Print the public half of a key, for the others.

    Parameters
    ----------
    key
        A key's name in the repository, or a key file.
    to
        A file to write it to.
    """
    sealed = SealedKeyFile.load(_key_path(key, options))
    data = PublicKeyFile(name=sealed.name, public=sealed.public).encode()
    if to is not None:
        write_atomic(to, data)
    else:
        sys.stdout.write(data.decode())


@key_app.command(name="list")
def key_list(options: Options = OPTIONS) -> None:
    """List the key files beside the repository, and what each may sign."""
    repository = options.open()
    state = repository.load()
    rows = []
    for file in Keyring(repository).files.values():
        try:
            roles = changes.roles_of_key(state, file.keyid)
        except UsageError:
            roles = []
        rows.append({"name": file.name, "keyid": file.keyid, "roles": roles})

    def render(console: Console) -> None:
        for row in rows:
            words = ", ".join(role_words(r) if r != "online" else "the online roles" for r in row["roles"])
            console.print(f"{row['name']} ({row['keyid'][:8]}): {words or 'nothing'}", markup=False)

    options.answer({"keys": rows}, render)


@key_app.command(name="passphrase")
def key_passphrase(
    key: str,
    /,
    *,
    old_passphrase_file: Path | None = None,
    keys: NewKeyOptions = NEW_KEYS,
    options: Options = OPTIONS,
) -> None:
    """Change a key's passphrase; the key stays the same.

    Parameters
    ----------
    key
        A key's name in the repository, or a key file.
    old_passphrase_file
        A file with the passphrase that the key has now; --passphrase-file is the new one.
    """
    path = _key_path(key, options)
    sealed = SealedKeyFile.load(path)
    old = PassphraseOptions(passphrase_file=(str(old_passphrase_file),) if old_passphrase_file else ())
    current = old.current_passphrase(sealed.name)
    resealed = sealed.reseal(current, keys.new_passphrase(sealed.name, "signing"), kdf=keys.kdf)
    resealed.save(path)
    options.answer({"file": str(path)}, lambda console: console.print(f"changed {path}", markup=False))


def _key_path(text: str, options: Options) -> Path:
    path = Path(text)
    return path if path.is_file() else Keyring(options.open()).path_of(text)
