"""Phone numbers of the synthetic population: valid, distinct, and recognisably mobile or landline.

The sandbox's platform takes a line number (the last four digits) of 9900 to 9999 for a landline.
"""

from vibes_pipelines.sandbox.names import AREA_CODES

_MOBILE_LINES = 9_900
_LANDLINES = 100
_EXCHANGES = tuple(
    exchange for exchange in range(200, 1000) if exchange % 100 != 11 and exchange != 555
)
_BLOCKS = len(AREA_CODES) * len(_EXCHANGES)
_STRIDE = 15_485_863
"""A prime that divides no count above: neighbouring indices get unrelated numbers."""


def mobile_number(index: int) -> str:
    """The E.164 mobile number of an index; distinct for every index below 500 million."""
    block, line = divmod(index * _STRIDE % (_BLOCKS * _MOBILE_LINES), _MOBILE_LINES)
    return _e164(block, line)


def landline_number(index: int) -> str:
    """The E.164 landline number of an index, which the sandbox's platform refuses."""
    block, line = divmod(index * _STRIDE % (_BLOCKS * _LANDLINES), _LANDLINES)
    return _e164(block, _MOBILE_LINES + line)


def _e164(block: int, line: int) -> str:
    area, exchange = divmod(block, len(_EXCHANGES))
    return f"+1{AREA_CODES[area]}{_EXCHANGES[exchange]}{line:04d}"


_SPELLINGS: tuple[str, ...] = (
    "({area}) {exchange}-{line}",
    "{area}-{exchange}-{line}",
    "{area}.{exchange}.{line}",
    "{area}{exchange}{line}",
    "1-{area}-{exchange}-{line}",
    "+1 {area} {exchange} {line}",
    "+1{area}{exchange}{line}",
)


def spelled(mdn: str, spelling: int) -> str:
    """A US number as somebody typed it into a CRM; `spelling` chooses one of several habits."""
    area, exchange, line = mdn[2:5], mdn[5:8], mdn[8:]
    habit = _SPELLINGS[spelling % len(_SPELLINGS)]
    return habit.format(area=area, exchange=exchange, line=line)
