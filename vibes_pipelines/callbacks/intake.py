"""Intake: posted bodies become rows of the inbox, many to a transaction, off the event loop."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vibes_pipelines.callbacks.tribe import tribe_arrival
from vibes_pipelines.store.inbox import Arrival, Reception
from vibes_pipelines.tribe.webhooks import Verdict
from vibes_pipelines.vibes.callbacks import CallbackError, DoubtfulCallback, read_callback

MOST_AT_ONCE = 200
"""Bodies in one transaction: what came in while the one before was written."""

TOO_LONG = "the body is longer than the receiver keeps"

Store = Callable[[Sequence[Arrival]], Sequence[Reception]]


@dataclass(frozen=True, slots=True)
class Posted:
    """One request's body. `body` may be its beginning only; size and hash are of the whole.

    `tribe`: what is said of the signature of a webhook of Tribe CRM; None for all other bodies.
    """

    source_address: str
    path: str
    body: bytes
    body_bytes: int
    sha256: str
    tribe: Verdict | None = None

    @property
    def is_cut(self) -> bool:
        """True when the end of the body was not kept."""
        return len(self.body) < self.body_bytes


def posted(source_address: str, path: str, body: bytes) -> Posted:
    """A body that was kept whole."""
    return Posted(source_address, path, body, len(body), hashlib.sha256(body).hexdigest())


def read_arrival(posting: Posted) -> Arrival:
    """What the inbox keeps of a body. One that nobody can act on is parked with the reason."""
    if posting.tribe is not None:
        return tribe_arrival(
            posting.source_address, posting.body, posting.body_bytes, posting.sha256, posting.tribe
        )
    if posting.is_cut:
        return _parked(posting, TOO_LONG)
    doubt: str | None = None
    try:
        callback = read_callback(posting.body)
    except DoubtfulCallback as doubtful:
        callback, doubt = doubtful.callback, str(doubtful)
    except CallbackError as unreadable:
        return _parked(posting, str(unreadable))
    except Exception as fault:  # noqa: BLE001 - a fault of ours must not lose what it cannot read
        return _parked(posting, f"reading it failed: {type(fault).__name__}")
    return Arrival(
        source_address=posting.source_address,
        path=posting.path,
        body=posting.body,
        body_bytes=posting.body_bytes,
        content_hash=callback.content_hash,
        # One that nobody may act on must not pass for the first of its event id.
        event_id=None if doubt else callback.event_id,
        event_type=callback.event_type,
        event_at=callback.event_at,
        company_key=callback.company_key,
        subscription_list_id=callback.list,
        external_person_id=callback.external_person_id,
        person_key=callback.person_key,
        person_id=callback.person_id,
        mdn=callback.mdn,
        parked=doubt,
    )


class Intake:
    """Stores what it is given and says of each body what became of it, once it is on disk.

    One thread writes. Whatever is given meanwhile waits, and goes into its next transaction.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="callbacks-intake")
        self._waiting: deque[tuple[Posted, asyncio.Future[Reception]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def put(self, posting: Posted) -> Reception:
        """Returns when the body is stored; raises whatever kept the database from storing it."""
        stored: asyncio.Future[Reception] = asyncio.get_running_loop().create_future()
        self._waiting.append((posting, stored))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await stored

    async def close(self) -> None:
        """Writes what waits, then ends the thread."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            postings = [posting for posting, _ in batch]
            answers = await loop.run_in_executor(self._thread, self._store_all, postings)
            for (_, stored), answer in zip(batch, answers, strict=True):
                if stored.done():  # whoever waited has left
                    continue
                if isinstance(answer, Exception):
                    stored.set_exception(answer)
                else:
                    stored.set_result(answer)

    def _store_all(self, postings: Sequence[Posted]) -> Sequence[Reception | Exception]:
        arrivals = [read_arrival(posting) for posting in postings]
        try:
            return self._store(arrivals)
        except Exception as failed:  # noqa: BLE001 - handed to whoever waits for the answer
            if len(arrivals) == 1:
                return [failed]
        # One body that the database refuses must not take the others with it.
        return [self._store_one(arrival) for arrival in arrivals]

    def _store_one(self, arrival: Arrival) -> Reception | Exception:
        try:
            return self._store([arrival])[0]
        except Exception as failed:  # noqa: BLE001 - as above
            return failed


def _parked(posting: Posted, reason: str) -> Arrival:
    return Arrival(
        source_address=posting.source_address,
        path=posting.path,
        body=posting.body,
        body_bytes=posting.body_bytes,
        content_hash=posting.sha256,
        parked=reason,
    )
