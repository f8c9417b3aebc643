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


class SftpUnavailable(SftpError):
    """Transient: unreachable, busy, or the connection broke. Try again later."""
