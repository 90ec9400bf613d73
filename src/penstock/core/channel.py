"""A payment channel: its fixed parameters and id, vouchers, locks, and what each signature means.

The forms are the contract's (`contracts/Channel.vy`): EIP-712 under the domain
`("Penstock Channel", "1", chainId, contract)`, one type for each purpose, and

    seed = keccak(domain separator || token)
    id   = keccak(seed || opener || partner || opener_key || partner_key || terms)    each a 32-byte word, where
    terms = counter (64 bits) | two_way (1) | period (the rest), from the lowest bit up
    leaf = keccak(0x00 || uint256 index || root || uint256 tick_value || uint256 ticks || uint256 expiry)
    node = keccak(0x01 || left || right)

A counter below `APART` is ordinary: the contract keeps the lowest free one beside the opener's balance. One from
`APART` up is the opener's own affair, and may be used once with each partner and terms; it makes an opening that is not
paid from the balance cheaper.

A tree of locks is padded to a power of two with leaves of 32 zero bytes; no lock at all has the root 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from penstock.core.errors import BadVoucher, OutOfRange
from penstock.core.identity import Address, Digest, keccak
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, Amount, Instant

MAX_LOCKS = 1024  # ten Merkle steps on chain; a hub carries hundreds
MAX_TICKS = 2**16 - 1  # a lock's; the chain walks them at some 264 gas each
MAX_PERIOD = 365 * 86_400  # seconds
MIN_PERIOD = 60
APART = 2**63  # counters from here on leave the opener's account alone

DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
VOUCHER_TYPE = "Voucher(bytes32 channel,uint64 nonce,uint96 amount,uint96 locked,uint64 lockedUntil,bytes32 locksRoot)"
CLOSE_TYPE = "Close(bytes32 channel,uint96 openerBalance,uint96 partnerBalance,uint64 expiry)"
WITHDRAWAL_TYPE = "Withdrawal(bytes32 channel,uint96 openerTotal,uint96 partnerTotal,uint64 expiry)"
RELEASE_TYPE = "Release(bytes32 channel,uint64 nonce,uint96 amount)"
ANSWER_TYPE = "Answer(bytes32 channel,bytes32 content,uint64 sequence)"
OPEN_TYPE = "Open(bytes32 channel,uint96 deposit,uint96 fee,uint64 expiry)"
ADD_TYPE = "Add(bytes32 channel,uint96 total,uint96 fee,uint64 expiry)"
DOMAIN_NAME = "Penstock Channel"
DOMAIN_VERSION = "1"

_DOMAIN_HASH = keccak(DOMAIN_TYPE.encode())
_VOUCHER_HASH = keccak(VOUCHER_TYPE.encode())
_CLOSE_HASH = keccak(CLOSE_TYPE.encode())
_WITHDRAWAL_HASH = keccak(WITHDRAWAL_TYPE.encode())
_RELEASE_HASH = keccak(RELEASE_TYPE.encode())
_ANSWER_HASH = keccak(ANSWER_TYPE.encode())
_OPEN_HASH = keccak(OPEN_TYPE.encode())
_ADD_HASH = keccak(ADD_TYPE.encode())


def _word(value: int | bytes) -> bytes:
    """One 32-byte ABI word: an integer, or bytes aligned to the right as addresses are."""
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


class Domain(msgspec.Struct, frozen=True, dict=True):
    """Where channels live: one contract on one chain, which serves one token."""

    name: ClassVar[str] = DOMAIN_NAME

    chain_id: int
    contract: Address
    token: Address

    @cached_property
    def separator(self) -> bytes:
        """The EIP-712 domain separator. 32 bytes."""
        return keccak(
            _DOMAIN_HASH
            + keccak(self.name.encode())
            + keccak(DOMAIN_VERSION.encode())
            + _word(self.chain_id)
            + _word(self.contract)
        )

    @cached_property
    def head(self) -> bytes:
        """Where everything that is signed for this ledger begins. 34 bytes."""
        return b"\x19\x01" + self.separator

    @cached_property
    def seed(self) -> bytes:
        """Where every channel's id begins. 32 bytes."""
        return keccak(self.separator + _word(self.token))


class ChannelParams(msgspec.Struct, frozen=True, dict=True):
    """What is fixed when a channel opens; its id commits to all of it.

    `opener_key` and `partner_key` are the addresses of the plain keys that sign vouchers; they must differ.
    `period` is the challenge period in seconds. `counter` is the opener's own and never repeats.
    A one-way channel (`two_way` false) carries payments from opener to partner only.
    """

    domain: Domain
    opener: Address
    partner: Address
    opener_key: Address
    partner_key: Address
    period: int
    two_way: bool
    counter: int

    @cached_property
    def id(self) -> bytes:
        """The channel's id. 32 bytes."""
        return keccak(
            self.domain.seed
            + _word(self.opener)
            + _word(self.partner)
            + _word(self.opener_key)
            + _word(self.partner_key)
            + _word(self.terms)
        )

    @cached_property
    def voucher_head(self) -> bytes:
        """Where every voucher's EIP-712 struct begins: its type and this channel. 64 bytes."""
        return _VOUCHER_HASH + self.id

    @property
    def terms(self) -> int:
        """Counter, direction and period in one word."""
        return self.counter | int(self.two_way) << 64 | self.period << 65

    def check(self) -> None:
        """Pass where the contract would open such a channel.

        Raises:
            OutOfRange: a party or key is zero or stands on both sides, or a number is outside its bounds.
        """
        zero = bytes(20)
        for party in (self.opener, self.partner, self.opener_key, self.partner_key):
            if len(party) != 20 or party == zero:
                raise OutOfRange("a channel's parties and keys are addresses of 20 bytes, none of them zero")
        if self.opener == self.partner or self.opener_key == self.partner_key:
            raise OutOfRange("a channel joins two different parties with two different voucher keys")
        if not MIN_PERIOD <= self.period <= MAX_PERIOD:
            raise OutOfRange(f"challenge period {self.period} s is outside {MIN_PERIOD}..{MAX_PERIOD} s")
        if not 0 <= self.counter < 2**64:
            raise OutOfRange("a channel's counter is a uint64")
        if not 0 <= self.domain.chain_id < 2**256 or {len(self.domain.contract), len(self.domain.token)} != {20}:
            raise OutOfRange("a channel's ledger is a chain's uint256 and two addresses of 20 bytes")

    def digest(self, struct_hash: bytes) -> Digest:
        """The EIP-712 digest of a struct under this channel's domain."""
        return Digest(keccak(self.domain.head + struct_hash))


class Lock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Value claimed tick by tick: `root = sha256^ticks(seed)`, and the k-th preimage proves k ticks of `tick_value`.

    `expiry` is in seconds since 1970; 0 is a lock between neighbours, which needs none: it can be proven until the
    channel's challenge is over.
    """

    root: bytes
    tick_value: int
    ticks: int
    expiry: int = 0

    @property
    def value(self) -> Amount:
        """What the lock is worth when every tick is proven (token units)."""
        return Amount(self.tick_value * self.ticks)

    def check(self) -> None:
        """Pass where the contract could pay this lock.

        Raises:
            BadVoucher: root not 32 bytes, or a number outside its bounds.
        """
        if len(self.root) != 32:
            raise BadVoucher("a lock's root is 32 bytes")
        if not (0 < self.tick_value <= MAX_AMOUNT and 0 < self.ticks <= MAX_TICKS and self.value <= MAX_AMOUNT):
            raise BadVoucher(f"a lock holds 1..{MAX_TICKS} ticks of at least one token unit, within uint96")
        if not 0 <= self.expiry < 2**64:
            raise BadVoucher("a lock's expiry is a uint64 of seconds")

    def leaf(self, index: int) -> bytes:
        """The lock's leaf at `index` of its tree. 32 bytes."""
        numbers = self.tick_value << 512 | self.ticks << 256 | self.expiry  # three words
        return keccak(index.to_bytes(33, "big") + self.root + numbers.to_bytes(96, "big"))  # the first byte is 0x00


class LockTree:
    """The canonical tree over locks, in their order. Costs two hashes a lock, once for all its branches."""

    __slots__ = ("_levels", "locks")

    def __init__(self, locks: Sequence[Lock]) -> None:
        """Raises BadVoucher where there are more than MAX_LOCKS, whose branches the contract does not walk."""
        if len(locks) > MAX_LOCKS:
            raise BadVoucher(f"{len(locks)} locks under one voucher, more than {MAX_LOCKS}")
        self.locks = locks
        level = [lock.leaf(index) for index, lock in enumerate(locks)] or [bytes(32)]
        level += [bytes(32)] * ((1 << (len(level) - 1).bit_length()) - len(level))
        self._levels = [level]
        while len(level) > 1:
            level = [keccak(b"\x01" + level[i] + level[i + 1]) for i in range(0, len(level), 2)]
            self._levels.append(level)

    @property
    def root(self) -> bytes:
        """32 bytes; zeros where there is no lock."""
        return self._levels[-1][0]

    def branch(self, index: int) -> list[bytes]:
        """The siblings from leaf `index` up to the root, as the contract wants them."""
        return [level[index >> height ^ 1] for height, level in enumerate(self._levels[:-1])]


def locks_root(locks: Sequence[Lock]) -> bytes:
    """The root of the canonical tree over `locks`, in their order. 32 zero bytes for none.

    Raises:
        BadVoucher: more than MAX_LOCKS, whose branches the contract does not walk.
    """
    return LockTree(locks).root


class Voucher(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A signed, cumulative promise in one direction of a channel: `amount` for good, and `locked` by the locks.

    `locked` is the locks' sum and `locked_until` their last expiry (seconds). The channel is not part of the struct;
    it is named when the voucher is signed.
    """

    nonce: int
    amount: int
    locked: int
    locked_until: int
    locks_root: bytes

    @classmethod
    def over(cls, nonce: int, amount: int, locks: Sequence[Lock] = ()) -> Voucher:
        """The voucher that promises `amount` and `locks`."""
        locked = sum(lock.value for lock in locks)
        return cls(nonce, amount, locked, max((lock.expiry for lock in locks), default=0), locks_root(locks))

    def holds(self, locks: Sequence[Lock]) -> bool:
        """Whether sum, last expiry and root are those of `locks`, and of no others."""
        if len(locks) == 1:  # a session's
            only = locks[0]
            same = self.locked == only.tick_value * only.ticks and self.locked_until == only.expiry
            return same and self.locks_root == only.leaf(0)
        return self == Voucher.over(self.nonce, self.amount, locks)

    def content(self, channel: ChannelParams) -> bytes:
        """The EIP-712 struct hash, to which a payee's answer refers. 32 bytes."""
        words = (
            channel.voucher_head,
            self.nonce.to_bytes(32, "big"),
            self.amount.to_bytes(32, "big"),
            self.locked.to_bytes(32, "big"),
            self.locked_until.to_bytes(32, "big"),
            self.locks_root,
        )
        return keccak(b"".join(words))

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that the payer's voucher key signs."""
        return Digest(keccak(channel.domain.head + self.content(channel)))


class Close(msgspec.Struct, frozen=True, array_like=True):
    """A cooperative end: what each side gets, good until `expiry` (seconds). Signed by both voucher keys.

    The two balances sum to what is in the channel. Whoever signs freezes the channel until this is mined or expired.
    """

    opener_balance: Annotated[int, Meta(ge=0)]
    partner_balance: Annotated[int, Meta(ge=0)]
    expiry: Annotated[int, Meta(ge=0, le=MAX_INSTANT)]

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that both voucher keys sign."""
        return channel.digest(
            keccak(
                _CLOSE_HASH + channel.id + _word(self.opener_balance) + _word(self.partner_balance) + _word(self.expiry)
            )
        )


class Withdrawal(msgspec.Struct, frozen=True, array_like=True):
    """What each side will have drawn from an open channel in all, good until `expiry` (seconds). Signed by both keys.

    Totals, not differences: mined twice it pays once. Whoever signs counts it as executed.
    """

    opener_total: int
    partner_total: int
    expiry: int

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that both voucher keys sign."""
        totals = _word(self.opener_total) + _word(self.partner_total)
        return channel.digest(keccak(_WITHDRAWAL_HASH + channel.id + totals + _word(self.expiry)))


class Release(msgspec.Struct, frozen=True, array_like=True):
    """A payee's promise to use no voucher below `nonce`, in return for at least `amount`."""

    nonce: int
    amount: int

    def content(self, channel: ChannelParams) -> bytes:
        """The EIP-712 struct hash, to which a payer's answer refers. 32 bytes."""
        return keccak(_RELEASE_HASH + channel.id + _word(self.nonce) + _word(self.amount))

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that the payee's voucher key signs."""
        return channel.digest(self.content(channel))


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A party's leave for anybody to file `content` (32 bytes: a voucher's or a release's) in its name in a challenge.

    The higher `sequence` of a payee's vouchers counts, and nothing counts once it has filed itself. A release, which is
    ordered by its nonce, has the sequence 0.
    """

    content: bytes
    sequence: int

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that the party's voucher key signs."""
        return channel.digest(keccak(_ANSWER_HASH + channel.id + self.content + _word(self.sequence)))


class SignedOpening(msgspec.Struct, frozen=True, array_like=True):
    """An opening from the opener's balance that anybody may send for `fee` token units, until `expiry` (seconds)."""

    deposit: int
    fee: int
    expiry: int

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that the opener's account signs."""
        sums = _word(self.deposit) + _word(self.fee)
        return channel.digest(keccak(_OPEN_HASH + channel.id + sums + _word(self.expiry)))


class SignedAddition(msgspec.Struct, frozen=True, array_like=True):
    """Raise the signer's deposit to `total` from its balance; anybody may send it for `fee`, until `expiry` (seconds).

    A total works once, because the deposit then has it.
    """

    total: int
    fee: int
    expiry: int

    def digest(self, channel: ChannelParams) -> Digest:
        """The EIP-712 digest that the party's account signs."""
        sums = _word(self.total) + _word(self.fee)
        return channel.digest(keccak(_ADD_HASH + channel.id + sums + _word(self.expiry)))


def authorization_nonce(channel: ChannelParams, deposit: int, fee: int = 0) -> bytes:
    """The nonce of the EIP-3009 authorization over `deposit + fee` that funds and opens the channel. 32 bytes."""
    return keccak(channel.id + _word(deposit | fee << 96))


def proof_words(tree: LockTree, index: int, count: int, preimage: bytes) -> list[bytes]:
    """`count` ticks of a lock, proven by one preimage, as the contract takes them: words of 32 bytes.

    A count of 0, with any preimage, is the form that gives up a lock which can no longer be proven.
    """
    lock, branch = tree.locks[index], tree.branch(index)
    head = index | lock.ticks << 16 | count << 32 | len(branch) << 48 | lock.expiry << 56 | lock.tick_value << 120
    return [_word(head), lock.root, preimage.rjust(32, b"\0"), *branch]


def compact(signature: bytes) -> tuple[int, int]:
    """A signature of 65 bytes as the contract takes it (EIP-2098): r, and s with the recovery bit on top."""
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return int.from_bytes(signature[:32], "big"), s


def seconds(at: Instant) -> int:
    """An instant in whole seconds, as the ledger counts."""
    return at // 1000
