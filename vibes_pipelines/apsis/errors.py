"""Everything that can go wrong with APSIS One, each as a type of its own.

Messages hold statuses, titles, discriminators and cures, never values of persons; what the API says
in detail may hold an address and is kept in `detail`, out of the message.
"""


class ApsisError(Exception):
    """APSIS One, its answer or what was to be sent to it is not as it must be."""


class ApsisSetupError(ApsisError):
    """A keyspace, section, attribute, topic, channel or tag of the config is not in the account."""


class ApsisLoginError(ApsisError):
    """The API key was refused; every further request would be."""


class ApsisAnswerError(ApsisError):
    """An answer has not the documented shape; the message names the call and the missing part."""


class ApsisUnavailable(ApsisError):  # noqa: N818 - the name says what is wrong
    """Transient, and every attempt failed. For a write, whether it was applied is unknown.

    `did_nothing`: no attempt can have been applied, because each was turned away (429) or never
    left.
    """

    def __init__(
        self,
        what: str,
        status: int | None,
        retry_after_s: float | None = None,
        *,
        did_nothing: bool = False,
    ) -> None:
        super().__init__(f"APSIS One API: {what}; nothing is wrong with the data, try again later")
        self.status = status
        self.retry_after_s = retry_after_s
        self.did_nothing = did_nothing


class ApsisRefused(ApsisError):  # noqa: N818 - the name says what is wrong
    """This one request was refused, and would be again.

    `is_repeat`: an earlier attempt of the same request may have been applied already.
    """

    def __init__(self, status: int, title: str, detail: str, cure: str) -> None:
        super().__init__(f"APSIS One API: HTTP {status} {title}; {cure}")
        self.status = status
        self.title = title
        self.detail = detail
        self.is_repeat = False


class ApsisForbidden(ApsisRefused):
    """403, also with a fresh token: the keyspace or the API key has no permission for this."""


class ApsisNotFound(ApsisRefused):
    """404: no such profile, keyspace, section or version."""


class ApsisConflict(ApsisRefused):
    """409: already there, or a change that the present state does not allow."""


class ApsisLocked(ApsisRefused):
    """410: the profile is locked or gone for ever."""


class ApsisTooLarge(ApsisRefused):
    """413: a body of more than 100 kB; seen before it is sent."""


class ApsisUnauthorized(ApsisRefused):
    """401: the token was not accepted; the transport renews it once."""


class ConsentRefused(ApsisError):  # noqa: N818 - the name says what is wrong
    """A consent cannot go from its present state to the wanted one. `current` is what is there."""

    def __init__(self, topic: str, channel: str, wanted: str, current: str | None) -> None:
        cure = (
            "the person has yet to confirm by mail; wait for it"
            if current == "pending-opt-in"
            else "look at the profile in APSIS One, the subscription may need double opt-in"
        )
        super().__init__(
            f"APSIS One API: consent for topic {topic}, channel {channel} cannot become {wanted}: "
            f"it is {current or 'not there'}; {cure}"
        )
        self.topic = topic
        self.channel = channel
        self.wanted = wanted
        self.current = current


class ValueRefused(ApsisError, ValueError):  # noqa: N818 - the name says what is wrong
    """A value has no form in the attribute's type. The message never holds the value."""

    def __init__(self, value_type: str, reason: str, cure: str) -> None:
        super().__init__(f"not a value of type {value_type}: {reason}; {cure}")
        self.value_type = value_type
        self.reason = reason


class ImportFailed(ApsisError):  # noqa: N818 - the name says what is wrong
    """An import ended in `error`, or never ended; `import_id` finds it in APSIS One's history."""

    def __init__(self, import_id: str | None, reason: str) -> None:
        super().__init__(f"APSIS One import {import_id or '(none)'}: {reason}")
        self.import_id = import_id
        self.reason = reason
