"""Who may log in to the share: a password or an RS256 key pair, refused as Snowflake refuses them.

Only the decision belongs here; how a login travels over HTTP is in `share_protocol`.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

WRONG_PASSWORD = ("390100", "Incorrect username or password was specified.")
WRONG_TOKEN = ("390144", "JWT token is invalid.")


class LoginRefusedError(Exception):
    """The login is refused; `code` is Snowflake's error number as the connector reports it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class ShareUser:
    """The one user of the share. Without `public_key_file` (PEM) no key pair is accepted."""

    name: str
    password: str
    public_key_file: Path | None = None

    def check(self, login: Mapping[str, Any]) -> None:
        """Accept the `data` of a login request or raise `LoginRefusedError`."""
        if str(login.get("AUTHENTICATOR", "")).upper() == "SNOWFLAKE_JWT":
            self._check_token(str(login.get("TOKEN", "")))
        else:
            self._check_password(str(login.get("LOGIN_NAME", "")), str(login.get("PASSWORD") or ""))

    def _check_password(self, name: str, password: str) -> None:
        known = name.upper() == self.name.upper()
        right = secrets.compare_digest(password.encode(), self.password.encode())
        if not (known and right):
            raise LoginRefusedError(*WRONG_PASSWORD)

    def _check_token(self, token: str) -> None:
        """Check signature, life time, user and key fingerprint.

        The claims are those of Snowflake's key-pair authentication: `sub` is `ACCOUNT.USER` and
        `iss` is `sub` followed by the fingerprint of the registered public key.
        """
        if self.public_key_file is None:
            raise LoginRefusedError(*WRONG_TOKEN)
        pem = self.public_key_file.read_bytes()
        try:
            claims = jwt.decode(
                token,
                pem,
                algorithms=["RS256"],
                options={"require": ["exp", "iat", "iss", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise LoginRefusedError(*WRONG_TOKEN) from error
        subject = str(claims["sub"])
        named = subject.upper().endswith(f".{self.name.upper()}")
        if not named or claims["iss"] != f"{subject}.{_fingerprint(pem)}":
            raise LoginRefusedError(*WRONG_TOKEN)


def _fingerprint(pem: bytes) -> str:
    der = load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()
