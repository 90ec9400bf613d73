"""Every error that Penstock raises on purpose.

    PenstockError
    ├── LocalError              something on our side, or asked of us, is wrong
    │   ├── UsageError          a flag, a file or a configuration value        (exit code 2)
    │   ├── OutOfRange          a number that its unit cannot hold
    │   ├── IllegalEvent        a machine was given an event that its state forbids
    │   ├── OutOfFunds          wallet, channel or budget cannot cover it
    │   ├── JournalError        the journal cannot be read or written
    │   └── DeviceError         a meter or a valve does not do its work
    ├── RemoteError             the peer broke the protocol, or went away
    │   ├── LinkLost            the connection ended or fell silent
    │   ├── BadFrame            bytes that are no frame, or too many of them
    │   ├── BadMessage          a frame that is no message of this version
    │   ├── BadSignature        malformed, or not by the key that had to sign
    │   ├── BadTerms            an offer or terms that we do not agree to
    │   ├── BadPreimage         it does not hash to the last one
    │   ├── BadVoucher          a voucher that the ledger would not pay in full
    │   │   └── Unbacked        for more than we know to be there: later it may be
    │   └── PeerRefused         the peer said no, and why
    │       └── Busy            it cannot take a session now; later it may
    ├── LedgerError             the chain, or the node that speaks for it
    │   ├── LedgerUnreachable   no answer from the node
    │   ├── WrongLedger         another chain, contract or token than was agreed
    │   ├── TransactionFailed   the chain refused or reverted a transaction
    │   └── OutOfGas            an account cannot pay for a transaction; an OutOfFunds, too
    ├── GridError               the grid's operator, or the server that speaks for it
    │   ├── GridUnreachable     no answer that can be used; its last orders stay in force
    │   ├── GridRefused         the server does not let us do this
    │   └── BadSignal           an event that cannot be obeyed, because it cannot be read
    └── PriceError              prices over time, or the source that publishes them
        ├── PricesUnreachable   no answer that can be used; the last prices stay, and age
        └── BadRates            a price series that cannot be read, or does not hold together

An error changes nothing: whoever raises it leaves its state as it was. `str(error)` is one line that says what is
wrong; `advice` says what to do about it.
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root. `advice` is one line on what to do; empty where the message already says it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice

    @property
    def kind(self) -> str:
        """The kind of error, for programs: the name of its class. None of a peer's words is in it."""
        return type(self).__name__

    def line(self) -> str:
        """The error as the one line that a user sees."""
        return f"{self}: {self.advice}" if self.advice else str(self)


class LocalError(PenstockError):
    """Something on our side, or asked of us, is wrong."""


class UsageError(LocalError):
    """A flag, a file or a configuration value is wrong. Nothing was started."""


class OutOfRange(LocalError):
    """A number that its unit cannot hold."""


class IllegalEvent(LocalError):
    """A machine was given an event that its state forbids. Its state is unchanged."""


class OutOfFunds(LocalError):
    """Wallet, channel or budget cannot cover what was asked."""


class JournalError(LocalError):
    """The journal cannot be read or written. Nothing that was not durable has been acknowledged."""


class DeviceError(LocalError):
    """A meter or a valve does not do its work."""


class RemoteError(PenstockError):
    """The peer broke the protocol, or went away."""


class LinkLost(RemoteError):
    """The connection ended or fell silent; a session on it can be resumed."""


class BadFrame(RemoteError):
    """Bytes that are no frame, or more of them than agreed."""


class BadMessage(RemoteError):
    """A frame that is no message of the version agreed, or one that does not belong here."""


class BadSignature(RemoteError):
    """Malformed, not canonical, or not by the key that had to sign."""


class BadTerms(RemoteError):
    """An offer or terms that we do not agree to."""


class BadPreimage(RemoteError):
    """A preimage that does not hash to the last one."""


class BadVoucher(RemoteError):
    """A voucher that the ledger would not pay in full, now or later."""


class Unbacked(BadVoucher):
    """A voucher for more than we know to be there; its payer may have seen its own deposit before we did."""


class BadReading(RemoteError):
    """A reading that the meter of the terms did not sign, or that does not follow the one before.

    `proof` holds journal rows where the meter did sign it, and contradicts itself: keep them, they are worth money.
    """

    proof: tuple[tuple[bytes, bytes | None], ...] = ()


class PeerRefused(RemoteError):
    """The peer said no. Its reason is the message."""


class Busy(PeerRefused):
    """No session can begin now; later one may."""


class LedgerError(PenstockError):
    """The chain, or the node that speaks for it."""


class LedgerUnreachable(LedgerError):
    """No answer from the node. Streaming goes on without it."""


class WrongLedger(LedgerError):
    """Another chain, contract or token than was agreed."""


class TransactionFailed(LedgerError):
    """The chain refused or reverted a transaction; `reason` is the contract's own word."""

    def __init__(self, message: str, advice: str = "", reason: str = "") -> None:
        super().__init__(message, advice)
        self.reason = reason


class OutOfGas(LedgerError, OutOfFunds):
    """An account cannot pay for a transaction: what it `has` and what it `needs` (wei), and `by` when.

    `by` is in seconds since 1970; 0 where nothing presses.
    """

    def __init__(self, message: str, advice: str, account: bytes, has: int, needs: int, by: int = 0) -> None:
        super().__init__(message, advice)
        self.account = account
        self.has = has
        self.needs = needs
        self.by = by


class GridError(PenstockError):
    """The grid's operator, or the server that speaks for it."""


class GridUnreachable(GridError):
    """No answer, or none that can be used. The orders that are known stay in force until their ends."""


class GridRefused(GridError):
    """The server does not let us do this: `status` is HTTP's."""

    def __init__(self, message: str, advice: str = "", status: int = 0) -> None:
        super().__init__(message, advice)
        self.status = status


class BadSignal(GridError):
    """An event of the grid that cannot be obeyed, because it cannot be read. It is dropped, and nothing else."""


class PriceError(PenstockError):
    """Prices over time, or the source that publishes them."""


class PricesUnreachable(PriceError):
    """No answer, or none that can be used. The last prices stay, and age."""


class BadRates(PriceError):
    """A price series that cannot be read, does not hold together, or does not cover the time it is needed for."""
