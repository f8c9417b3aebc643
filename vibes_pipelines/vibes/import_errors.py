"""What can be wrong with an import file or with the platform's report on it."""


class CannotExpress(ValueError):  # noqa: N818 - the name says what is wrong
    """An import file has no safe form for this change; send it through the API."""


class ImportFileError(ValueError):
    """An import file is not one the platform would accept; the message names file and row."""


class ImportFileUnwritable(OSError):  # noqa: N818 - the name says what is wrong
    """An import file cannot be written to this machine's disk; the message names place and cure."""


class MissingEvidence(ImportFileError):  # noqa: N818 - the name says what is wrong
    """Subscriptions were to be imported without proof that the persons consented."""


class ImportReportError(ValueError):
    """A report or summary of the platform does not have the expected form."""
