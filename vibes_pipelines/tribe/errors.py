"""What can go wrong between us and Tribe CRM; each message names the URL's path and the cure."""


class TribeError(Exception):
    """Tribe CRM could not be asked, or did not do what it was asked."""


class TribeAuthError(TribeError):
    """Tribe refuses the application's credentials, or what they give right to."""


class TribeForbiddenError(TribeAuthError):
    """Tribe refuses the right to this one request (HTTP 403); others may be granted."""


class TribeUnavailableError(TribeError):
    """Tribe did not answer at any attempt, or turned every attempt away.

    Whether a write was applied is unknown, unless `did_nothing`.
    """

    def __init__(self, message: str, *, did_nothing: bool = False) -> None:
        super().__init__(message)
        self.did_nothing = did_nothing


class TribeUnansweredError(TribeUnavailableError):
    """A write that is sent once only got no answer; read anew, it may be sent again."""


class TribeRefusedError(TribeError):
    """Tribe refuses this one request; the same again would be refused again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TribeAnswerError(TribeError):
    """Tribe answered in a form that we do not know; nothing was made of it."""


class TribeMovedError(TribeError):
    """The persons changed so much while they were read that no complete list came about."""


class TribeLabelError(TribeError):
    """A person's labels are not what was written; see `TRIBE_LABEL_WRITE`."""


class TribeFieldError(TribeError):
    """A field or a label of sync.yaml that Tribe does not have; the message names near ones."""


class TribeWebhookError(TribeError):
    """A webhook's body from which no change of a person can be read."""
