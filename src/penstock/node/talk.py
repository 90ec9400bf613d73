"""A consumer's side of one link: questions with their answers, then a session's messages."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from penstock.core.codec import decode, encode
from penstock.core.errors import BadMessage, LinkLost, PeerRefused, PenstockError, RemoteError
from penstock.core.messages import Message, Refused
from penstock.core.ports import Link
from penstock.node.shell import SessionShell

ANSWER = 60.0  # seconds for an answer that may need the peer's ledger
MAX_WAITING = 1_024  # messages of a peer that we have not got to yet

_Answer = TypeVar("_Answer", bound=Message)


class Talk:
    """One link of a consumer: questions with their answers first, then a session's frames."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.why = ""
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Any] = loop.create_future()
        self._answers: asyncio.Queue[Message] = asyncio.Queue(MAX_WAITING)
        self._shell: SessionShell | None = None
        link.attach(self._on_frame, self._on_lost)

    def hand_over(self, shell: SessionShell) -> None:
        """From now on messages are the session's, until it is over; those too that came while we were writing."""
        self._shell = shell
        for message in [self._answers.get_nowait() for _ in range(self._answers.qsize())]:
            self._take(message)

    def leave(self) -> None:
        """End the link."""
        self.link.close("done")

    def end(self, error: RemoteError) -> None:
        """Cut the peer off: it broke the protocol."""
        self.link.close(error.line())
        self._on_lost(error)

    async def ask(self, message: Message, *answers: type[_Answer]) -> _Answer:
        """Send a message and wait for one of its answers.

        Raises:
            PeerRefused: the peer said no. LinkLost: no answer came. BadMessage: another answer came.
        """
        if self.lost.done():
            raise LinkLost(self.why or "the link is gone")
        self.link.send(encode(message))
        waiting: asyncio.Future[Any] = asyncio.ensure_future(self._answers.get())
        try:
            await asyncio.wait([waiting, self.lost], timeout=ANSWER, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not waiting.done():
            raise LinkLost(self.why or f"the peer did not answer within {ANSWER:.0f} s")
        answer = waiting.result()
        if isinstance(answer, Refused):
            raise PeerRefused(answer.why[:300])
        if not isinstance(answer, answers):
            raise BadMessage(f"the peer answered {type(message).__name__} with {type(answer).__name__}")
        return answer

    def _on_frame(self, frame: bytes) -> None:
        try:
            if self._shell is not None and self._shell.carries(frame):
                return
            message = decode(frame)
        except RemoteError as error:
            self.end(error)
        else:
            self._take(message)

    def _take(self, message: Message) -> None:
        try:
            if self._shell is not None and not self._shell.over:
                self._shell.take(message)
            elif self._answers.full():
                raise BadMessage("the peer sends more than it was asked for")
            else:
                self._answers.put_nowait(message)
        except RemoteError as error:
            self.end(error)

    def _on_lost(self, error: PenstockError) -> None:
        self.why = error.line()
        if not self.lost.done():
            self.lost.set_result(None)
