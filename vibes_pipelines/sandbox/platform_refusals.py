"""Why the platform refuses a call: one typed refusal each, with the HTTP status of the answer.

Imports translate the same refusals into error classes (see `import_rows`). The numbers in `code`
are the sandbox's own: the Vibes documentation publishes no catalogue of them.
"""

from typing import ClassVar


class RefusalError(Exception):
    """A refused call; `messages` go into the `errors` array of the answer, all faults together."""

    status: ClassVar[int] = 422
    code: ClassVar[int] = 10

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


class InvalidBodyError(RefusalError):
    """Syntactically fine, but not to be processed: unknown fields, wrong types, unknown keys."""


class MalformedRequestError(RefusalError):
    """The request cannot be read at all: broken JSON, or a malformed number in the query."""

    status = 400
    code = 11


class MalformedMdnError(MalformedRequestError):
    """The number is not in the form which the API version wants."""

    code = 12


class UnsupportedMediaTypeError(RefusalError):
    """A body that does not say it is JSON."""

    status = 415
    code = 13


class UnauthorizedError(RefusalError):
    """The user name or the password is wrong, or missing."""

    status = 401
    code = 14


class MethodNotAllowedError(RefusalError):
    """The call exists, but not with this method."""

    status = 405
    code = 15


class TooManyRequestsError(RefusalError):
    """More requests in a second than the company may send."""

    status = 429
    code = 16


class NotFoundError(RefusalError):
    """No such person, list, route or company."""

    status = 404
    code = 20


class PersonNotFoundError(NotFoundError):
    """No person has this identifier."""

    code = 21


class NotSubscribedError(NotFoundError):
    """The person is not on the list at present."""

    code = 22


class CallbackNotFoundError(NotFoundError):
    """No callback is registered under this id, or none is active for a test."""

    code = 23


class NoIdentifierError(RefusalError):
    """Nothing to create a record from: neither a mobile phone nor an external person id."""

    code = 30

    def __init__(self) -> None:
        super().__init__("a person needs mobile_phone.mdn or external_person_id")


class ExternalPersonIdTakenError(RefusalError):
    """The external person id belongs to somebody else (an assumption for the Person API: 422)."""

    code = 31

    def __init__(self) -> None:
        super().__init__("EXTERNALPERSONIDMISMATCH: external_person_id belongs to another person")


class MdnWriteOnceError(RefusalError):
    """The person has another MDN: an MDN can be removed but not changed."""

    status = 409
    code = 32

    def __init__(self) -> None:
        super().__init__("the person has another mdn; an mdn cannot be updated, only removed")


class MdnTakenError(RefusalError):
    """The MDN belongs to another person."""

    status = 409
    code = 33

    def __init__(self) -> None:
        super().__init__("the mdn belongs to another person")


class IdentityConflictError(RefusalError):
    """The identifiers of a call name two persons, or one under another external person id."""

    status = 409
    code = 34


class NoCarrierError(RefusalError):
    """The number has no provisioned carrier, typically a landline."""

    code = 35

    def __init__(self) -> None:
        super().__init__("the mdn is not a valid mobile phone active on a valid carrier")


class CarrierLookupDownError(RefusalError):
    """The carrier look-up is out of order for the moment."""

    status = 503
    code = 36

    def __init__(self) -> None:
        super().__init__("the carrier lookup service is temporarily unavailable")


class CallbackTakenError(RefusalError):
    """The callback is registered already (an assumption: the documentation gives no status)."""

    code = 40


class TooManyCallbacksError(RefusalError):
    """The callback goes to as many URLs as it may already."""

    code = 41


class CallbackUrlError(RefusalError):
    """The URL cannot take callbacks, or this sandbox sends none there."""

    code = 42


class AlreadySubscribedError(RefusalError):
    """The participant is on the campaign's list already."""

    status = 409
    code = 50

    def __init__(self) -> None:
        super().__init__("the participant is already subscribed to the campaign's list")


class ConfirmationBlockError(RefusalError):
    """The number once answered no to this campaign; only its owner's keyword lifts that."""

    code = 51

    def __init__(self) -> None:
        super().__init__("MDNHASCONFIRMATIONBLOCK: the mdn has answered no to this campaign")


class UnprocessableError(RefusalError):
    """Readable, but not to be done; the message says why."""

    code = 52

    def __init__(self, why: str) -> None:
        super().__init__(f"UNPROCESSABLE ENTITY: {why}")


class EventIdTakenError(RefusalError):
    """An event with this id was accepted before."""

    code = 53

    def __init__(self) -> None:
        super().__init__("event_id was used before")
