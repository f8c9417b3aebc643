"""Sends a few operations at once and tells what was answered; no ledger belongs here.

A refused person stops nobody else; a refused login, or a right that is missing altogether, stops
what has not left yet.
"""

import asyncio
from collections.abc import Sequence

from vibes_pipelines.delivery.forbidden import Forbidden
from vibes_pipelines.delivery.ports import OperationSender
from vibes_pipelines.delivery.receipts import receipt
from vibes_pipelines.store.records import Operation, Receipt
from vibes_pipelines.vibes.api_calls import Outcome
from vibes_pipelines.vibes.api_transport import VibesForbidden

CONCURRENCY = 16
"""Requests in flight at once; a person has one operation of a kind at a time."""


async def send_together(
    sender: OperationSender, operations: Sequence[Operation]
) -> tuple[list[Receipt], Exception | None]:
    """Sends each operation once; returns the answers, and why the others have none."""
    sending = _Sending(sender)
    await asyncio.gather(*map(sending.send, operations))
    if sending.fault is None:
        sending.reject_forbidden()
    return sending.receipts, sending.fault


class _Sending:
    def __init__(self, sender: OperationSender) -> None:
        self._sender = sender
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self._forbidden = Forbidden()
        self.receipts: list[Receipt] = []
        self.fault: Exception | None = None

    async def send(self, operation: Operation) -> None:
        async with self._gate:
            if self.fault is not None:
                return
            try:
                answer = await self._sender.send(operation)
            except VibesForbidden as refused:
                self._hold(operation, refused)
            except Exception as fault:  # noqa: BLE001 - raised once the answers of others are kept
                self.fault = fault
            else:
                self._take(operation, answer.outcome, answer.error_class, answer.message)
                if answer.outcome == "accepted":
                    self.reject_forbidden()

    def reject_forbidden(self) -> None:
        """Somebody else was accepted, or few were forbidden: it was about these persons."""
        for operation, message in self._forbidden.let_go():
            self._take(operation, "rejected", VibesForbidden.error_class, message)

    def _hold(self, operation: Operation, refused: VibesForbidden) -> None:
        if refused.in_doubt:
            self._take(operation, "unknown", refused.error_class, str(refused))
            return
        self._forbidden.hold(operation, str(refused))
        if self._forbidden.is_everything:
            self.fault = refused

    def _take(
        self, operation: Operation, outcome: Outcome, error_class: str | None, message: str | None
    ) -> None:
        self.receipts.append(receipt(operation.operation_id, outcome, error_class, message))
