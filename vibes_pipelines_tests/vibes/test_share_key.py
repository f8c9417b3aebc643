"""The private key of the share: which ones are taken, and what is told of the others."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.vibes.share_errors import ShareError
from vibes_pipelines.vibes.share_key import check_private_key

SECRET = "s3cret-s3cret"


def key(secret: str | None = None) -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(secret.encode())
        if secret
        else serialization.NoEncryption(),
    )


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_key_is_taken_in_either_form(tmp_path: Path, secret: str | None) -> None:
    path = tmp_path / "key.p8"
    for text in (pem := key(secret), base64.b64encode(pem)):
        path.write_bytes(text)
        check_private_key(path, secret)


@pytest.mark.parametrize(
    ("text", "passphrase", "told"),
    [
        (None, None, r"cannot be read \(No such file or directory\); correct the path"),
        (b"no key", None, "is no private key in PEM; make one"),
        (key(SECRET), None, "needs SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"),
        (key(SECRET), "other", "or SNOWFLAKE_PRIVATE_KEY_PASSPHRASE does not open it"),
        (key(), "other", "is not encrypted; leave SNOWFLAKE_PRIVATE_KEY_PASSPHRASE out"),
    ],
)
def test_an_unfit_key_is_told_with_its_setting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: bytes | None,
    passphrase: str | None,
    told: str,
) -> None:
    path = tmp_path / "key.p8"
    if text is not None:
        path.write_bytes(text)
    monkeypatch.delenv("SNOWFLAKE_PASSWORD", raising=False)
    monkeypatch.setenv("SNOWFLAKE_ACCOUNT", "account")
    monkeypatch.setenv("SNOWFLAKE_USER", "user")
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PATH", str(path))
    if passphrase:
        monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PASSPHRASE", passphrase)
    with (
        pytest.raises(ShareError, match=f"SNOWFLAKE_PRIVATE_KEY_PATH: .*{told}") as raised,
        ShareResource().connector()(),
    ):
        pass
    assert SECRET not in str(raised.value)
