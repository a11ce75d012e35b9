"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric (v1) and asymmetric (v1a). Pure.

Signed is `id.timestamp.body`. v1 is HMAC-SHA256 under a secret `whsec_<base64 of 24 to 64 bytes>`; v1a is ed25519 under
a key of the endpoint's own, because one key for all merchants would let each of them pass its events on to the others
as ours. During a rotation both secrets sign, separated by a space.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
SECRET_BYTES = 32  # of those we make
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64  # of those we take; the standard's own bounds
SEED_BYTES = 32  # of an ed25519 key


def secret_bytes(text: str) -> bytes:
    """The bytes of `whsec_...`. Raises ValueError in words for any other form."""
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret begins with {SECRET_PREFIX}")
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a secret is {SECRET_PREFIX} and base64") from None
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ValueError(f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64")
    return secret


def secret_text(secret: bytes) -> str:
    """`whsec_...`, as the merchant is shown it, once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def public_text(seed: bytes) -> str:
    """`whpk_...` of the ed25519 key with this seed."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PUBLIC_PREFIX + base64.b64encode(public).decode()


def signatures(event_id: str, timestamp_s: int, body: bytes, secrets: Sequence[bytes], seeds: Sequence[bytes]) -> str:
    """The value of `webhook-signature`: one v1 per secret, one v1a per seed, the current ones first."""
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    words = [b"v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")) for secret in secrets]
    words += [b"v1a," + base64.b64encode(Ed25519PrivateKey.from_private_bytes(seed).sign(signed)) for seed in seeds]
    return b" ".join(words).decode()
