"""OpenPGP signatures (RFC 9580), by Sequoia. The only module that imports it. Blocking: a millisecond each.

Sequoia judges a signature by the moment at which it was made: one that an expired certificate could have made
while it was valid counts for it. Here a certificate that has expired signs nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pysequoia

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError

_CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ALTERED = "none of the keys has signed this as it is"


def split_keys(data: bytes, what: str) -> list[bytes]:
    """Cut a keyring (binary or armoured) into its certificates; what is secret in it is left out.

    Raises:
        UsageError: there are none in it, or too many or too large ones.
    """
    try:
        certificates = pysequoia.Cert.split_bytes(data)
    except Exception as error:  # noqa: BLE001 - the library raises what it likes
        raise UsageError(f"{what} holds no OpenPGP keys ({_words(error)})") from None
    keys = [bytes(certificate) for certificate in certificates]
    if not keys:
        raise UsageError(f"{what} holds no OpenPGP keys", hint="give the file that apt has in signed-by")
    if len(keys) > limits.FOLLOW_KEYS_MAX or max(map(len, keys)) > limits.FOLLOW_KEY_BYTES_MAX:
        raise UsageError(
            f"{what} holds more than {limits.FOLLOW_KEYS_MAX} keys, or one of more than"
            f" {limits.FOLLOW_KEY_BYTES_MAX} bytes",
            hint="export those that sign this repository: gpg --export-options export-minimal --export KEY",
        )
    return keys


class Keyring:
    """The certificates that may sign.

    Args:
        keys: Each as :func:`split_keys` gives it.
        now: Unix seconds.

    Raises:
        UsageError: one of them is none.
    """

    def __init__(self, keys: Sequence[bytes], *, now: int) -> None:
        certificates = [_certificate(key) for key in keys]
        moment = datetime.fromtimestamp(now, UTC)
        self._valid = [
            each
            for each in certificates
            if not each.is_revoked and (each.expiration is None or each.expiration > moment)
        ]
        self._why_none = ""
        if certificates and not self._valid:
            first = certificates[0]
            why = "is revoked" if first.is_revoked else f"has expired on {first.expiration:%Y-%m-%d}"
            self._why_none = f"the key {first.fingerprint.upper()} {why}"

    def open_clear(self, data: bytes, what: str) -> bytes:
        """Return the text that was signed in *data*, a message with a clear-text signature.

        Whatever stands around the signed text is not in it.

        Raises:
            TrustError: it is no such message, or none of the certificates has signed it.
        """
        if not data.startswith(_CLEAR):
            raise TrustError(f"{what} is not signed in clear text")
        self._check_any(what)
        try:
            verified = pysequoia.verify(data, self._store)
        except Exception as error:  # noqa: BLE001 - the library raises what it likes
            raise _refused(what, error) from None
        if verified.bytes is None or not verified.valid_sigs:
            raise TrustError(f"{what} is refused: {_ALTERED}")
        return verified.bytes

    def check_detached(self, data: bytes, signature: bytes, what: str) -> int:
        """Check a detached signature over *data*; return when it was made, Unix seconds (0: it does not say).

        Raises:
            TrustError: none of the certificates has made it over this.
        """
        self._check_any(what)
        try:
            parsed = pysequoia.Sig.from_bytes(signature)
            verified = pysequoia.verify(data, self._store, signature=parsed)
        except Exception as error:  # noqa: BLE001 - the library raises what it likes
            raise _refused(what, error) from None
        if not verified.valid_sigs:
            raise TrustError(f"{what} is refused: {_ALTERED}")
        return int(parsed.created.timestamp()) if parsed.created is not None else 0

    def _check_any(self, what: str) -> None:
        if not self._valid:
            reason = self._why_none or "no key is named that may sign it"
            raise TrustError(
                f"{what} is refused: {reason}", hint="make the task again with the vendor's present key"
            )

    def _store(self, _ids: Sequence[str]) -> list[pysequoia.Cert]:
        return self._valid


def _certificate(key: bytes) -> pysequoia.Cert:
    try:
        return pysequoia.Cert.from_bytes(key)
    except Exception as error:  # noqa: BLE001 - the library raises what it likes
        raise UsageError(f"a key of the task is no OpenPGP certificate ({_words(error)})") from None


def _refused(what: str, error: Exception) -> TrustError:
    words = _words(error)
    if "no valid signatures" in words:
        words = _ALTERED
    return TrustError(
        f"{what} is refused: {words}", hint="the vendor's key may be a new one, or somebody altered it"
    )


def _words(error: Exception) -> str:
    """The first line: what follows is where in the library it happened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
