"""Names of columns: their words, and which of them mean the same."""

import re
import unicodedata
from collections.abc import Iterable

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")

# Each line is one meaning; the first is how a custom field is usually called.
_SAME: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in (
        "firstname givenname forename prename vorname voornaam prenom fname",
        "lastname surname familyname nachname achternaam nom lname",
        "birthdate birthday dateofbirth dob born bornon birth geburtsdatum geboortedatum",
        "zipcode zip postalcode postcode plz postal",
        "city town stad ort",
        "email emailaddress mail",
        "score points",
        "tier level status segment",
        "interests hobbies topics preferences",
        "gender sex",
        "country land",
        "language locale lang",
    )
)


def _set(line: str) -> frozenset[str]:
    return frozenset(line.split())


MOBILE_WORDS = _set("mobile mdn cell cellphone msisdn gsm handy mobiel mobil")
PHONE_WORDS = MOBILE_WORDS | _set("phone telephone tel telefoon telefon")
CONSENT_WORDS = _set("opt optin consent subscribed permission optedin allowed agreed toestemming")
OTHER_CHANNELS = _set("email mail push letter post call fax")
TIME_WORDS = _set("at date time changed since on when updated timestamp op")
IN = _set("true 1 y yes t j ja si oui in optin opted_in subscribed granted active on")
OUT = _set("false 0 n no f nee nein non out optout opted_out unsubscribed denied withdrawn off")
DEFAULT_SPELLINGS = _set("true 1 y yes false 0 n no")


def words(name: str) -> list[str]:
    """The words of a name in lower case: `dateOfBirth`, `Date_of-birth` are date, of, birth."""
    plain = unicodedata.normalize("NFKD", _CAMEL.sub("_", name)).encode("ascii", "ignore").decode()
    return [word for word in _NOT_A_WORD.split(plain.lower()) if word]


def key_of(name: str) -> str:
    """A name as a custom field's key: `Date of Birth` is `date_of_birth`; may be empty."""
    return "_".join(words(name))


def has_word(name: str, among: Iterable[str]) -> bool:
    """Whether one of these is a word of the name."""
    return not set(words(name)).isdisjoint(among)


def mean_the_same(one: str, other: str) -> bool:
    """Whether two names are the same, or are known to mean the same."""
    plain, other_plain = "".join(words(one)), "".join(words(other))
    if not plain or not other_plain:
        return False
    if plain == other_plain:
        return True
    return any({plain, other_plain} <= same for same in _SAME)
