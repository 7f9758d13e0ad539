"""Ed25519 keys: a node's identity, and the sealed key files of the people and machines that sign.

An :class:`IdentityKey` lies on its node's disk in the clear (PKCS #8, owner only), because a node must
start unattended. A :class:`SealedKeyFile` holds a signing key encrypted with a passphrase (Argon2id,
then XSalsa20-Poly1305); its public half can be read without the passphrase.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import nacl.exceptions
import nacl.pwhash.argon2id as argon2id
import nacl.secret
import nacl.utils
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta
from nacl.signing import SigningKey
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, write_secret
from p2pdist.ids import NodeId, node_id_of

KEY_NAME_FIELD = "x-p2pdist-name"
"""Where a public key in TUF metadata says whose it is."""

Kdf = Literal["moderate", "interactive"]
"""How hard a passphrase is to guess: ``moderate`` takes 256 MiB and about a second for each try."""

_KDF_LIMITS: dict[str, tuple[int, int]] = {
    "moderate": (argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE),
    "interactive": (argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE),
}
_SEED_BYTES = 32


class IdentityKey:
    """A node's identity key; it never leaves the node.

    Attributes:
        public: The public key, 32 bytes.
        node: The id that is derived from it.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public: bytes = bytes(self._key.verify_key)
        self.node: NodeId = node_id_of(self.public)

    def __repr__(self) -> str:
        return f"IdentityKey({self.node})"

    @classmethod
    def generate(cls) -> IdentityKey:
        """Make a new key from the system's randomness."""
        return cls(nacl.utils.random(_SEED_BYTES))

    @classmethod
    def load(cls, path: Path) -> IdentityKey:
        """Read a key file.

        Raises:
            UsageError: it is not there, others may read it, or it holds no Ed25519 private key.
        """
        data = read_bounded(path, bytes_max=limits.KEY_FILE_BYTES_MAX)
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path} may be read by others", hint=f"run: chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError(f"{path} holds no readable private key", hint="enrol the node again") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path} holds no Ed25519 key", hint="enrol the node again")
        return cls(key.private_bytes_raw())

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner only.

        Raises:
            Unavailable: the disk is full or fails; what was there before still is.
        """
        write_secret(path, self.private_pem())

    def private_pem(self) -> bytes:
        """Return the private key as PKCS #8 PEM, for TLS. Keep it in memory."""
        return self.for_certificates().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def for_certificates(self) -> Ed25519PrivateKey:
        """Return the key as ``cryptography`` takes it."""
        return Ed25519PrivateKey.from_private_bytes(bytes(self._key))

    def for_boxes(self) -> SigningKey:
        """Return the key as PyNaCl takes it."""
        return self._key


class Ed25519Signer(Signer):
    """Signs TUF metadata through PyNaCl.

    Args:
        seed: The private key, 32 bytes.
        name: Whose key it is; travels with the public key in the metadata.
    """

    def __init__(self, seed: bytes, *, name: str = "") -> None:
        self._key = SigningKey(seed)
        self._public = public_key_of(bytes(self._key.verify_key), name=name)

    @property
    def public_key(self) -> SSlibKey:
        """The public half, as it stands in the metadata."""
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """Sign *payload*."""
        return Signature(self._public.keyid, self._key.sign(payload).signature.hex())

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Ed25519Signer:
        """Open ``sealed:PATH``, a :class:`SealedKeyFile`, with a passphrase from *secrets_handler*.

        Raises:
            UsageError: the file, the passphrase or the key is not the right one.
        """
        scheme, _, path = priv_key_uri.partition(":")
        if scheme != "sealed" or secrets_handler is None:
            raise UsageError(f"{priv_key_uri!r} does not name a sealed key file", hint="write sealed:PATH")
        signer = SealedKeyFile.load(Path(path)).open(secrets_handler("passphrase").encode())
        if signer.public_key.keyid != public_key.keyid:
            raise UsageError(f"{path} holds another key than {public_key.keyid}")
        return signer


class _KdfParameters(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["argon2id"] = "argon2id"
    # What a file may ask for: at most what libsodium calls "sensitive", so that none can exhaust us.
    operations: Annotated[int, Meta(ge=1, le=argon2id.OPSLIMIT_SENSITIVE)]
    memory_bytes: Annotated[int, Meta(ge=8_192, le=argon2id.MEMLIMIT_SENSITIVE)]
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]

    def derive(self, passphrase: bytes) -> nacl.secret.SecretBox:
        return nacl.secret.SecretBox(
            argon2id.kdf(
                nacl.secret.SecretBox.KEY_SIZE,
                passphrase,
                self.salt,
                opslimit=self.operations,
                memlimit=self.memory_bytes,
            )
        )


class SealedKeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key, encrypted with a passphrase. JSON on disk, readable by its owner only.

    Attributes:
        name: Whose key it is, such as ``alice`` or ``online``.
        public: The public key, 32 bytes; not secret.
        kdf: How the passphrase becomes the key of the box.
        box: The private key, sealed.
    """

    format: Literal["p2pdist sealed key 1"] = "p2pdist sealed key 1"
    name: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
    public: Annotated[bytes, Meta(min_length=32, max_length=32)]
    kdf: _KdfParameters
    box: Annotated[bytes, Meta(min_length=72, max_length=72)]

    @classmethod
    def create(cls, name: str, passphrase: bytes, *, kdf: Kdf = "moderate") -> SealedKeyFile:
        """Make a new signing key and seal it. Takes as long as one guess at the passphrase shall take.

        Raises:
            UsageError: the passphrase is empty, or the name is.
        """
        if not name or len(name) > limits.NAME_CHARS_MAX:
            raise UsageError("a key needs a name", hint=f"at most {limits.NAME_CHARS_MAX} characters")
        return cls._seal(name, nacl.utils.random(_SEED_BYTES), passphrase, kdf)

    @classmethod
    def _seal(cls, name: str, seed: bytes, passphrase: bytes, kdf: Kdf) -> SealedKeyFile:
        if not passphrase:
            raise UsageError("the passphrase is empty", hint="choose one of several words")
        operations, memory_bytes = _KDF_LIMITS[kdf]
        salt = nacl.utils.random(argon2id.SALTBYTES)
        parameters = _KdfParameters(operations=operations, memory_bytes=memory_bytes, salt=salt)
        return cls(
            name=name,
            public=bytes(SigningKey(seed).verify_key),
            kdf=parameters,
            box=bytes(parameters.derive(passphrase).encrypt(seed)),
        )

    @property
    def public_key(self) -> SSlibKey:
        """The public half, as it stands in TUF metadata."""
        return public_key_of(self.public, name=self.name)

    @property
    def keyid(self) -> str:
        """TUF's id of the key."""
        return self.public_key.keyid

    def open(self, passphrase: bytes) -> Ed25519Signer:
        """Decrypt the key.

        Raises:
            UsageError: the passphrase is wrong, or the file was altered.
        """
        return Ed25519Signer(self._unseal(passphrase), name=self.name)

    def reseal(self, old: bytes, new: bytes, *, kdf: Kdf = "moderate") -> SealedKeyFile:
        """Return the same key under another passphrase. Raises UsageError like :meth:`open`."""
        return self._seal(self.name, self._unseal(old), new, kdf)

    def _unseal(self, passphrase: bytes) -> bytes:
        try:
            seed = self.kdf.derive(passphrase).decrypt(self.box)
        except nacl.exceptions.CryptoError:
            raise UsageError(
                f"the passphrase does not open the key of {self.name}", hint="type it again"
            ) from None
        if bytes(SigningKey(seed).verify_key) != self.public:
            raise UsageError(
                f"the key file of {self.name} was altered: its public and private halves do not belong"
                " together",
                hint="restore it from a backup",
            )
        return seed

    @classmethod
    def load(cls, path: Path) -> SealedKeyFile:
        """Read a key file. Raises UsageError if it is not there or not one."""
        data = read_bounded(path, bytes_max=limits.KEY_FILE_BYTES_MAX)
        sealed: SealedKeyFile = decode_json(data, cls, f"{path} is not a sealed key file")
        return sealed

    def save(self, path: Path) -> None:
        """Write the key file. Raises Unavailable when the disk is full; then nothing has changed."""
        write_secret(path, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


class PublicKeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a signing key, to be handed around."""

    format: Literal["p2pdist public key 1"] = "p2pdist public key 1"
    name: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
    public: Annotated[bytes, Meta(min_length=32, max_length=32)]

    def encode(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.encode(self) + b"\n"


def load_public_key(path: Path) -> SSlibKey:
    """Read a public key from a sealed key file or a public one. Raises UsageError if it is neither."""
    data = read_bounded(path, bytes_max=limits.KEY_FILE_BYTES_MAX)
    try:
        file: PublicKeyFile = decode_json(data, PublicKeyFile, f"{path} is not a public key file")
    except UsageError:
        return SealedKeyFile.load(path).public_key
    return public_key_of(file.public, name=file.name)


def public_key_of(public: bytes, *, name: str = "") -> SSlibKey:
    """Return the Ed25519 key *public* (32 bytes) as TUF metadata holds it. The name is no part of its id."""
    key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))
    if name:
        key.unrecognized_fields[KEY_NAME_FIELD] = name
    return key


def key_name(key: Any) -> str:
    """Say whose key this is: its name if it has one, and the beginning of its id."""
    name = key.unrecognized_fields.get(KEY_NAME_FIELD)
    short: str = key.keyid[:8]
    return f"{name} ({short})" if isinstance(name, str) and name else short
