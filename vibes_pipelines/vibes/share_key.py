"""The private key that opens the Snowflake share: looked at before it is used, told when unfit."""

import base64
from pathlib import Path

from vibes_pipelines.vibes.share_errors import ShareError

_PATH, _PASSPHRASE = "SNOWFLAKE_PRIVATE_KEY_PATH", "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"


def check_private_key(path: Path, passphrase: str | None) -> None:
    """Loads the key as `dagster_snowflake` will, which says neither file nor setting.

    Raises:
        ShareError: it cannot be read, is no private key in PEM, or the passphrase does not open it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - slow to import
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        text = path.read_bytes()
    except OSError as unreadable:
        msg = f"share: {_PATH}: {path} cannot be read ({unreadable.strerror}); correct the path"
        raise ShareError(msg) from None
    secret = passphrase.encode() if passphrase else None
    try:
        try:
            load_pem_private_key(text, secret)
        except ValueError:
            load_pem_private_key(base64.b64decode(text), secret)
    except TypeError:
        cure = f"is not encrypted; leave {_PASSPHRASE} out" if secret else f"needs {_PASSPHRASE}"
        msg = f"share: {_PATH}: the key {path} {cure}"
        raise ShareError(msg) from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = f", or {_PASSPHRASE} does not open it" if secret else ""
        msg = (
            f"share: {_PATH}: {path} is no private key in PEM{wrong}; make one with "
            "`openssl genrsa 2048 | openssl pkcs8 -topk8` and give Snowflake its public half"
        )
        raise ShareError(msg) from None
