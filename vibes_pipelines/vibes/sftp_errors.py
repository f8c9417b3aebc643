"""What can go wrong with the SFTP account. Only `SftpUnavailable` is worth another attempt."""

# ruff: noqa: N818 - the names say what is wrong


class SftpError(Exception):
    """Permanent until somebody changes something; the message says what."""


class HostKeyMismatch(SftpError):
    """The server's host key is not the one in the known_hosts file."""


class AuthenticationRefused(SftpError):
    """The server refused the user or the key."""


class RemoteFileMissing(SftpError):
    """A file or folder does not exist on the server."""


class TransferRefused(SftpError):
    """The server refused a file operation, or a transferred file has the wrong size."""


class LocalDiskError(OSError):
    """The disk of this machine gave or took no more; no failure of the server."""

    def __init__(self, failed: OSError) -> None:
        super().__init__(failed.errno, f"{failed.strerror} (on this machine, not at the server)")


class SftpUnavailable(SftpError):
    """Transient: unreachable, busy, or the connection broke. Try again later."""
