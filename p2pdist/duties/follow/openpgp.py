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
_RAISED = (RuntimeError, ValueError, TypeError, OverflowError)  # RuntimeError for whatever Sequoia says
_ALTERED = "none of the keys has signed this as it is"


def split_keys(data: bytes, what: str) -> list[bytes]:
    """Cut a keyring (binary or armoured) into its certificates; what is secret in it is left out.

    Raises:
        UsageError: there are none in it, or too many or too large ones.
    """
    try:
        keys = [bytes(certificate) for certificate in pysequoia.Cert.split_bytes(data)]
    except _RAISED as error:
        raise UsageError(f"{what} holds no OpenPGP keys ({_words(error)})") from None
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
        moment = datetime.fromtimestamp(now, UTC)
        judged = [_judged(key, moment) for key in keys]
        self._valid = [certificate for certificate, objection in judged if not objection]
        self._why_none = judged[0][1] if judged else "no key is named that may sign it"

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
        except _RAISED as error:
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
            created = parsed.created
        except _RAISED as error:
            raise _refused(what, error) from None
        if not verified.valid_sigs:
            raise TrustError(f"{what} is refused: {_ALTERED}")
        return int(created.timestamp()) if created is not None else 0

    def _check_any(self, what: str) -> None:
        if not self._valid:
            hint = "make the task again with the vendor's present key"
            raise TrustError(f"{what} is refused: {self._why_none}", hint=hint)

    def _store(self, _ids: Sequence[str]) -> list[pysequoia.Cert]:
        return self._valid


def _judged(key: bytes, moment: datetime) -> tuple[pysequoia.Cert, str]:
    """Return a certificate, and why it may not sign at *moment*; empty when it may."""
    try:
        certificate = pysequoia.Cert.from_bytes(key)
        revoked, expiration = certificate.is_revoked, certificate.expiration
        name = f"the key {certificate.fingerprint.upper()}"
    except _RAISED as error:
        raise UsageError(f"a key of the task is no OpenPGP certificate ({_words(error)})") from None
    if revoked:
        return certificate, f"{name} is revoked"
    if expiration is not None and expiration <= moment:
        return certificate, f"{name} has expired on {expiration:%Y-%m-%d}"
    return certificate, ""


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
