"""The platform's signing key: generated once, kept in the service's own state directory, readable by it alone."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_BITS = 2048


@dataclass(frozen=True)
class KeyPair:
    """An RSA key as PEM text."""

    private: str
    public: str

    def secret(self, purpose: str) -> bytes:
        """A secret for `purpose` that lives as long as the key, so that a restart ends no session."""
        return hmac.new(self.private.encode(), purpose.encode(), hashlib.sha256).digest()


def generate() -> KeyPair:
    return _pair(rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS))


def load_or_create(path: Path) -> KeyPair:
    """The key in `path`; made (mode 0600) where there is none. A half-written key never appears under the name."""
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(generate().private)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{path} holds no RSA key; remove it, and a new one is made")
    return _pair(key)


def _pair(key: rsa.RSAPrivateKey) -> KeyPair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private.decode("ascii"), public.decode("ascii"))
