# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Penstock Channel
@license Apache-2.0
@notice Payment channels over one ERC-20 token: open, add, close together or alone, prove ticks, settle.
@dev The forms (ids, EIP-712 types, lock trees) are those of `penstock.core.channel`. There is no owner, no pause and no
     upgrade. What holds throughout:

     - A balance is credited inside this contract; only `withdraw` moves tokens out, and only to the caller.
     - An id is never used twice: it commits to the opener and to a counter of the opener's that only rises. The counter
       lives in the slot of the opener's balance, so the channel's own slot can be cleared, and its gas refunded.
     - No sum overflows: a deposit is refused where it would take the contract's tokens above uint96.
     - A token may call back. The functions that call it are `@nonreentrant`; they use no state that was read before the
       call, and no call follows a write but the last one of `withdraw`. The others call nobody.
     - Time: a voucher is filed and a lock without expiry proven while now < closes_at; a lock with an expiry is proven
       while now < expiry; a cooperative close is good while now <= expiry; settling starts at closes_at.

     A token that changes balances by itself (rebasing) cannot be kept here: nothing notices when it shrinks.
"""

from ethereum.ercs import IERC20


interface IERC3009:
    def receiveWithAuthorization(
        from_: address,
        to: address,
        amount: uint256,
        valid_after: uint256,
        valid_before: uint256,
        nonce: bytes32,
        v: uint8,
        r: bytes32,
        s: bytes32,
    ): nonpayable


# What is fixed when a channel opens. The id commits to it.
struct Params:
    opener: address
    partner: address
    opener_key: address  # the plain key that signs the opener's vouchers
    partner_key: address
    period: uint32  # the challenge period, in seconds
    two_way: bool  # one-way: payments go from opener to partner only
    counter: uint64  # the opener's own; only rises


# r, s below the half order, v 27 or 28. All zero where a signature is spared.
struct Signature:
    r: bytes32
    s: bytes32
    v: uint8


# A cumulative promise in one direction: `amount` for good, `locked` by the locks under `locks_root`.
struct Voucher:
    nonce: uint64
    amount: uint96
    locked: uint96
    locked_until: uint64
    locks_root: bytes32


# A cooperative end, signed by both voucher keys.
struct Close:
    params: Params
    opener_balance: uint96
    partner_balance: uint96
    expiry: uint64
    opener_signature: Signature
    partner_signature: Signature


# A stream lock, where it stands in its tree, and the siblings from its leaf up to the root.
struct Lock:
    index: uint16
    root: bytes32
    tick_value: uint96
    ticks: uint16
    expiry: uint64  # seconds; 0 is none
    branch: DynArray[bytes32, MAX_DEPTH]


# `count` ticks of a lock, proven by one preimage.
struct Claim:
    lock: Lock
    count: uint16
    preimage: bytes32


# A channel's slot, unpacked.
struct State:
    opener_deposit: uint256
    partner_deposit: uint256
    closes_at: uint256  # 0 while nobody has begun to close
    opener_filed: bool  # the opener has filed a voucher of the partner
    partner_filed: bool
    part_paid: bool  # settled but for open locks
    locked: bool  # a voucher with locks was filed


# What a payee has filed, unpacked: ticks proven have moved from `locked` to `amount`.
struct Filing:
    amount: uint256
    locked: uint256
    locked_until: uint256
    serial: uint256  # of this payee's filings in this channel


MIN_PERIOD: constant(uint256) = 60
MAX_PERIOD: constant(uint256) = 365 * 86_400
MAX_DEPTH: constant(uint256) = 10  # 1,024 locks
MAX_CLAIMS: constant(uint256) = 8  # in one transaction; the rest follow in others
MAX_ROWS: constant(uint256) = 64
UINT96: constant(uint256) = 2**96 - 1
UINT40: constant(uint256) = 2**40 - 1
UINT16: constant(uint256) = 2**16 - 1
EXISTS: constant(uint256) = 1 << 232
OPENER_FILED: constant(uint256) = 1 << 233
PARTNER_FILED: constant(uint256) = 1 << 234
PART_PAID: constant(uint256) = 1 << 235
LOCKED: constant(uint256) = 1 << 236
HALF_ORDER: constant(uint256) = (  # of secp256k1
    115792089237316195423570985008687907852837564279074904382605163141518161494337 // 2
)

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256(
    "Voucher(bytes32 channel,uint64 nonce,uint96 amount,uint96 locked,uint64 lockedUntil,bytes32 locksRoot)"
)
CLOSE_TYPE: constant(bytes32) = keccak256(
    "Close(bytes32 channel,uint96 openerBalance,uint96 partnerBalance,uint64 expiry)"
)

TOKEN: immutable(address)
# Fixed at deployment, and not renewed if the chain ever changes its id: open channels would lose their ids.
SEPARATOR: immutable(bytes32)

# owner -> balance (96 bits) | the lowest counter that is still free
accounts: HashMap[address, uint256]
# id -> opener deposit (96) | partner deposit (96) | closes_at (40) | flags (5, of 24); 0 where there is no channel
channels: HashMap[bytes32, uint256]
# id -> payee -> amount (96) | locked (96) | locked_until (40) | serial (24)
filings: HashMap[bytes32, HashMap[address, uint256]]
# id -> payee -> the lock tree of the filed voucher, where anything is locked
trees: HashMap[bytes32, HashMap[address, bytes32]]
# (id, payee, serial, index) -> ticks proven (16) | the upper 240 bits of their preimage, from where a later proof goes on
proven: HashMap[bytes32, uint256]
# id -> paid to the opener (96) | paid to the partner (96), while open locks hold the rest
paid: HashMap[bytes32, uint256]


event Deposited:
    owner: indexed(address)
    amount: uint256


event Withdrawn:
    owner: indexed(address)
    amount: uint256


# All that an id commits to is in here, so that a party that lost its records can still leave.
# `terms`: deposit (96) | counter (64) | period (32) | two_way (1), from the lowest bit up
event Opened:
    channel: indexed(bytes32)
    opener: indexed(address)
    partner: indexed(address)
    opener_key: address
    partner_key: address
    terms: uint256


event Added:
    channel: indexed(bytes32)
    owner: indexed(address)
    amount: uint256


event Closing:
    channel: indexed(bytes32)
    closer: indexed(address)
    closes_at: uint256


event Filed:
    channel: indexed(bytes32)
    payee: indexed(address)
    nonce: uint64
    amount: uint96


# The preimage is what a hub lifts to claim on its other side.
event Proven:
    channel: indexed(bytes32)
    payee: indexed(address)
    root: indexed(bytes32)
    count: uint256
    preimage: bytes32


event Expired:
    channel: indexed(bytes32)
    payee: indexed(address)
    root: indexed(bytes32)
    freed: uint256


event PartSettled:
    channel: indexed(bytes32)
    opener_amount: uint256
    partner_amount: uint256
    held: uint256


# What was credited now; with earlier parts it is the channel's whole pot.
event Settled:
    channel: indexed(bytes32)
    opener_amount: uint256
    partner_amount: uint256


event Skipped:
    channel: indexed(bytes32)
    reason: String[64]


@deploy
def __init__(token: address):
    """
    @notice Serve one token, for good.
    @param token The ERC-20 token; an address without code is refused.
    """
    assert token.is_contract, "channel: token is no contract"
    TOKEN = token
    SEPARATOR = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("Penstock Channel"), keccak256("1"), chain.id, self)
    )


# -- balances --


@external
@nonreentrant
def deposit(amount: uint96):
    """
    @notice Move tokens from the caller's wallet into its balance here. Needs an allowance.
    @param amount Token units.
    """
    self._pull(msg.sender, amount)
    self._credit(msg.sender, convert(amount, uint256))
    log Deposited(owner=msg.sender, amount=convert(amount, uint256))


@external
@nonreentrant
def withdraw(amount: uint96):
    """
    @notice Move token units from the caller's balance into its wallet.
    @param amount Token units.
    """
    self._debit(msg.sender, convert(amount, uint256))
    log Withdrawn(owner=msg.sender, amount=convert(amount, uint256))
    assert extcall IERC20(TOKEN).transfer(
        msg.sender, convert(amount, uint256), default_return_value=True
    ), "channel: token refused"


# -- opening and adding --


@external
def open(params: Params, deposit: uint96):
    """
    @notice Open a channel from the caller's balance.
    @param params The channel; the caller is its opener.
    @param deposit Token units that the opener puts in; may be 0.
    """
    assert msg.sender == params.opener, "channel: not the opener"
    self._open(params, deposit, convert(deposit, uint256))


@external
@nonreentrant
def open_from_token(params: Params, deposit: uint96):
    """
    @notice Open a channel straight from the caller's wallet. Needs an allowance.
    @param params The channel; the caller is its opener.
    @param deposit Token units that the opener puts in.
    """
    assert msg.sender == params.opener, "channel: not the opener"
    self._pull(params.opener, deposit)
    self._open(params, deposit, 0)


@external
@nonreentrant
def open_with_permit(params: Params, deposit: uint96, deadline: uint256, signature: Signature):
    """
    @notice Open a channel from the caller's wallet by an EIP-2612 permit of exactly `deposit`.
    @dev The permit may have been used by somebody who saw it: its failure is ignored, the allowance decides.
         A permit names no channel, so that only the opener may send it.
    @param params The channel; the caller is its opener.
    @param deposit Token units that the opener puts in.
    @param deadline The permit's, in seconds.
    @param signature The permit's.
    """
    assert msg.sender == params.opener, "channel: not the opener"
    permitted: bool = raw_call(
        TOKEN,
        abi_encode(
            params.opener,
            self,
            convert(deposit, uint256),
            deadline,
            signature.v,
            signature.r,
            signature.s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._pull(params.opener, deposit)
    self._open(params, deposit, 0)


@external
@nonreentrant
def open_with_authorization(
    params: Params, deposit: uint96, valid_after: uint256, valid_before: uint256, signature: Signature
):
    """
    @notice Open a channel by the opener's EIP-3009 authorization, whose nonce is the channel's id. Anybody may send it.
    @dev The signature binds deposit and channel together: nothing else in this contract redeems authorizations, and the
         token redeems them for no other caller.
    @param params The channel.
    @param deposit Token units that the opener puts in; not 0.
    @param valid_after The authorization's, in seconds.
    @param valid_before The authorization's, in seconds.
    @param signature The opener's, over ReceiveWithAuthorization(opener, this contract, deposit, after, before, id).
    """
    # A token that takes any call for granted (wrapped ether does) checks no signature. Then nothing arrives; and nothing
    # is what a stranger would need to use up the opener's counters.
    assert deposit != 0, "channel: nothing authorized"
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    extcall IERC3009(TOKEN).receiveWithAuthorization(
        params.opener,
        self,
        convert(deposit, uint256),
        valid_after,
        valid_before,
        self._id(params),
        signature.v,
        signature.r,
        signature.s,
    )
    self._check_arrival(before, deposit)
    self._open(params, deposit, 0)


@external
def add(params: Params, amount: uint96):
    """
    @notice Add to the caller's side of an open channel from its balance.
    @param params The channel; in a one-way channel only the opener adds.
    @param amount Token units.
    """
    self._debit(msg.sender, convert(amount, uint256))
    self._add(params, convert(amount, uint256))


@external
@nonreentrant
def add_from_token(params: Params, amount: uint96):
    """
    @notice Add to the caller's side of an open channel from its wallet. Needs an allowance.
    @param params The channel; in a one-way channel only the opener adds.
    @param amount Token units.
    """
    self._pull(msg.sender, amount)
    self._add(params, convert(amount, uint256))


# -- ending together --


@external
def close_together(close: Close):
    """
    @notice End a channel as both sides signed. Also ends a challenge that has not been settled.
    @dev A side that sends this itself needs no signature: in a batch that saves a fifth of a row's gas.
    @param close The channel, what each side gets (together: all that is in it), until when, and both signatures.
    """
    flaw: String[64] = self._close_together(close)
    assert len(flaw) == 0, flaw


@external
def close_many(closes: DynArray[Close, MAX_ROWS]):
    """
    @notice End many channels as both sides signed. A row that is not good is skipped, with an event that says why.
    @param closes As for `close_together`.
    """
    for close: Close in closes:
        flaw: String[64] = self._close_together(close)
        if len(flaw) != 0:
            log Skipped(channel=self._id(close.params), reason=flaw)


# -- ending alone --


@external
def close(params: Params):
    """
    @notice Begin to close without filing a voucher. The other side has `period` seconds to file; so has the caller.
    @param params The channel; the caller is a party to it.
    """
    id: bytes32 = self._id(params)
    self.channels[id] = self._pack(self._begin(id, params))


@external
def close_and_file(params: Params, voucher: Voucher, signature: Signature, claims: DynArray[Claim, MAX_CLAIMS]):
    """
    @notice Begin to close, and file the best voucher that the caller received.
    @param params The channel; the caller is a party that can be paid in it.
    @param voucher The voucher.
    @param signature The payer's voucher key's.
    @param claims Ticks under the voucher that the caller can prove.
    """
    id: bytes32 = self._id(params)
    state: State = self._begin(id, params)
    self._file(id, params, voucher, signature, state)
    if len(claims) != 0:
        self._prove(id, claims)


@external
def file(params: Params, voucher: Voucher, signature: Signature, claims: DynArray[Claim, MAX_CLAIMS]):
    """
    @notice Within the challenge, file the best voucher that the caller received. It replaces an earlier one of the
            caller's and the ticks proven under it, whatever the two are worth.
    @param params The channel; the caller is a party that can be paid in it.
    @param voucher The voucher.
    @param signature The payer's voucher key's.
    @param claims Ticks under the voucher that the caller can prove.
    """
    id: bytes32 = self._id(params)
    state: State = self._existing(id)
    assert state.closes_at != 0, "channel: not closing"
    assert block.timestamp < state.closes_at, "channel: challenge over"
    self._file(id, params, voucher, signature, state)
    if len(claims) != 0:
        self._prove(id, claims)


@external
def prove(params: Params, claims: DynArray[Claim, MAX_CLAIMS]):
    """
    @notice Prove ticks under the voucher that the caller has filed; a higher count replaces a lower one.
    @param params The channel.
    @param claims The ticks. A proof goes on where the last one ended, so that a long one can be split.
    """
    self._prove(self._id(params), claims)


@external
def expire(params: Params, payee: address, lock: Lock):
    """
    @notice Give up the unproven ticks of a lock that can no longer be proven, so that they hold nothing back.
            Anybody may. `settle` then pays out what became free.
    @param params The channel.
    @param payee The party whose filed voucher holds the lock.
    @param lock The lock: past its expiry, or without one after the challenge.
    """
    id: bytes32 = self._id(params)
    state: State = self._unpack(self.channels[id])
    filing: Filing = self._unpack_filing(self.filings[id][payee])
    end: uint256 = convert(lock.expiry, uint256)
    if end == 0:
        end = state.closes_at
    assert block.timestamp >= end, "channel: lock can still be proven"
    assert self._in_tree(lock, self.trees[id][payee]), "channel: lock not in the filed voucher"
    place: bytes32 = keccak256(abi_encode(id, payee, filing.serial, lock.index))
    done: uint256 = self.proven[place] & UINT16
    ticks: uint256 = convert(lock.ticks, uint256)
    assert done < ticks, "channel: nothing left in the lock"
    freed: uint256 = min((ticks - done) * convert(lock.tick_value, uint256), filing.locked)
    self.proven[place] = ticks
    filing.locked -= freed
    self.filings[id][payee] = self._pack_filing(filing)
    log Expired(channel=id, payee=payee, root=lock.root, freed=freed)


@external
def finish(params: Params, voucher: Voucher, signature: Signature, claims: DynArray[Claim, MAX_CLAIMS]):
    """
    @notice The payee of a one-way channel files its best voucher and is paid at once: nobody else can file anything.
            Ticks that it does not prove here are given up.
    @param params The channel, open or in its challenge; the caller is its partner.
    @param voucher The voucher.
    @param signature The opener's voucher key's.
    @param claims Ticks under the voucher that the caller can prove, ordered by lock index.
    """
    assert msg.sender == params.partner, "channel: not the partner"
    assert not params.two_way, "channel: two-way"
    id: bytes32 = self._id(params)
    state: State = self._existing(id)
    assert state.closes_at == 0 or block.timestamp < state.closes_at, "channel: challenge over"
    self._check_voucher(id, params, voucher, signature)
    earned: uint256 = 0
    next: uint256 = 0
    for claim: Claim in claims:
        index: uint256 = convert(claim.lock.index, uint256)
        assert index >= next, "channel: claims out of order"
        next = index + 1
        earned += self._earn(voucher.locks_root, convert(voucher.locked_until, uint256), claim, 0)
        log Proven(
            channel=id, payee=msg.sender, root=claim.lock.root, count=convert(claim.count, uint256), preimage=claim.preimage
        )
    owed: uint256 = convert(voucher.amount, uint256) + min(earned, convert(voucher.locked, uint256))
    partner_amount: uint256 = min(owed, state.opener_deposit)
    self._clear(id, params, state)
    self._pay(id, params, state.opener_deposit - partner_amount, partner_amount)


@external
def settle(params: Params):
    """
    @notice Once the challenge is over, pay out all that no open lock holds back. Anybody may.
            Where locks with an expiry hold something, call again when they are proven or expired.
    @param params The channel.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self.channels[id]
    assert word != 0, "channel: no such channel"
    state: State = self._unpack(word)
    assert state.closes_at != 0, "channel: not closing"
    assert block.timestamp >= state.closes_at, "channel: challenge not over"

    to_opener: Filing = empty(Filing)
    to_partner: Filing = empty(Filing)
    if state.opener_filed:
        to_opener = self._live(self.filings[id][params.opener])
    if state.partner_filed:
        to_partner = self._live(self.filings[id][params.partner])
    pot: uint256 = state.opener_deposit + state.partner_deposit
    credit: uint256 = state.opener_deposit + to_opener.amount
    # The opener's balance if every open lock goes against it, and if every one goes its way. What lies between is held.
    least: uint256 = self._balance(credit, to_partner.amount + to_partner.locked, pot)
    most: uint256 = self._balance(credit + to_opener.locked, to_partner.amount, pot)
    opener_amount: uint256 = least
    partner_amount: uint256 = pot - most
    if state.part_paid:
        before: uint256 = self.paid[id]
        opener_amount -= before & UINT96
        partner_amount -= before >> 96

    if least == most:
        self._clear(id, params, state)
        self._pay(id, params, opener_amount, partner_amount)
        return
    self.paid[id] = least | ((pot - most) << 96)
    state.part_paid = True
    self.channels[id] = self._pack(state)
    self._credit(params.opener, opener_amount)
    self._credit(params.partner, partner_amount)
    log PartSettled(channel=id, opener_amount=opener_amount, partner_amount=partner_amount, held=most - least)


# -- views --


@external
@view
def token() -> address:
    """
    @notice Which token this is about.
    @return The ERC-20 token that this contract serves.
    """
    return TOKEN


@external
@view
def domain_separator() -> bytes32:
    """
    @notice What binds every signature to this chain and contract.
    @return The EIP-712 domain separator.
    """
    return SEPARATOR


@external
@view
def balance_of(owner: address) -> uint256:
    """
    @notice What an account can withdraw or open channels from.
    @param owner An account.
    @return Its token units in this contract, outside channels.
    """
    return self.accounts[owner] & UINT96


@external
@view
def next_counter(opener: address) -> uint256:
    """
    @notice Which counters are still free.
    @param opener An account.
    @return The lowest counter with which it can still open a channel; any higher one will do too.
    """
    return self.accounts[opener] >> 96


@external
@view
def channel_id(params: Params) -> bytes32:
    """
    @notice The id that a channel has or would have.
    @param params A channel, open or not.
    @return Its id.
    """
    return self._id(params)


@external
@view
def channel(params: Params) -> (uint256, uint256, uint256, uint256):
    """
    @notice Where a channel stands.
    @param params A channel.
    @return Status (0 absent, 1 open, 2 closing, 3 settled: it will never open again), the opener's deposit, the
            partner's deposit, and when the challenge ends (seconds; 0 while it is open).
    """
    word: uint256 = self.channels[self._id(params)]
    if word == 0:
        over: bool = convert(params.counter, uint256) < (self.accounts[params.opener] >> 96)
        return 3 if over else 0, 0, 0, 0
    state: State = self._unpack(word)
    return 1 if state.closes_at == 0 else 2, state.opener_deposit, state.partner_deposit, state.closes_at


@external
@view
def filing(params: Params, payee: address) -> (uint256, uint256, uint256, bytes32):
    """
    @notice What a party has filed in a dispute.
    @param params A channel.
    @param payee A party to it.
    @return What `payee` has filed: amount with the ticks proven, what is still locked, until when (seconds), and the
            locks' tree. Zeros where it has filed nothing.
    """
    id: bytes32 = self._id(params)
    filing: Filing = self._unpack_filing(self.filings[id][payee])
    return filing.amount, filing.locked, filing.locked_until, self.trees[id][payee]


@external
@view
def part_paid(params: Params) -> (uint256, uint256):
    """
    @notice What a channel has paid out so far.
    @param params A channel.
    @return What opener and partner have been paid of it while open locks hold the rest.
    """
    word: uint256 = self.paid[self._id(params)]
    return word & UINT96, word >> 96


@external
@view
def voucher_digest(params: Params, voucher: Voucher) -> bytes32:
    """
    @notice What makes a voucher binding.
    @param params The channel.
    @param voucher The voucher.
    @return The EIP-712 digest that the payer's voucher key signs.
    """
    return self._voucher_digest(self._id(params), voucher)


@external
@view
def close_digest(params: Params, opener_balance: uint96, partner_balance: uint96, expiry: uint64) -> bytes32:
    """
    @notice What makes a cooperative close binding.
    @param params The channel.
    @param opener_balance What the opener gets.
    @param partner_balance What the partner gets.
    @param expiry Until when the close is good, in seconds.
    @return The EIP-712 digest that both voucher keys sign.
    """
    return self._close_digest(self._id(params), opener_balance, partner_balance, expiry)


# -- opening and adding, inside --


@internal
def _open(params: Params, deposit: uint96, from_balance: uint256):
    """
    @dev Record a channel. `from_balance` of the deposit comes from the opener's balance; the rest has arrived.
    """
    assert (
        params.opener != empty(address)
        and params.partner != empty(address)
        and params.opener_key != empty(address)
        and params.partner_key != empty(address)
    ), "channel: zero address"
    assert params.opener != params.partner, "channel: both parties are the same"
    assert params.opener_key != params.partner_key, "channel: both keys are the same"
    period: uint256 = convert(params.period, uint256)
    assert period >= MIN_PERIOD and period <= MAX_PERIOD, "channel: period out of bounds"

    account: uint256 = self.accounts[params.opener]
    counter: uint256 = convert(params.counter, uint256)
    assert counter >= account >> 96, "channel: counter used"
    assert account & UINT96 >= from_balance, "channel: balance too low"
    self.accounts[params.opener] = ((account & UINT96) - from_balance) | ((counter + 1) << 96)

    amount: uint256 = convert(deposit, uint256)
    id: bytes32 = self._id(params)
    # The slot is free: no two channels of an opener have the same counter.
    self.channels[id] = self._pack(State(
        opener_deposit=amount, partner_deposit=0, closes_at=0, opener_filed=False, partner_filed=False,
        part_paid=False, locked=False,
    ))
    log Opened(
        channel=id,
        opener=params.opener,
        partner=params.partner,
        opener_key=params.opener_key,
        partner_key=params.partner_key,
        terms=amount | (counter << 96) | (period << 160) | (convert(params.two_way, uint256) << 192),
    )


@internal
def _add(params: Params, amount: uint256):
    """
    @dev Put `amount`, which has been taken from the caller, on the caller's side.
    """
    id: bytes32 = self._id(params)
    state: State = self._existing(id)
    assert state.closes_at == 0, "channel: closing"
    if msg.sender == params.opener:
        state.opener_deposit += amount
    else:
        assert msg.sender == params.partner, "channel: not a party"
        assert params.two_way, "channel: one-way"
        state.partner_deposit += amount
    self.channels[id] = self._pack(state)
    log Added(channel=id, owner=msg.sender, amount=amount)


# -- ending, inside --


@internal
def _close_together(close: Close) -> String[64]:
    """
    @dev End a channel by consent. Returns what is wrong with the row; then nothing was changed. Empty: done.
    """
    params: Params = close.params
    id: bytes32 = self._id(params)
    word: uint256 = self.channels[id]
    if word == 0:
        return "channel: no such channel"
    state: State = self._unpack(word)
    if state.part_paid:
        return "channel: part paid out"
    if block.timestamp > convert(close.expiry, uint256):
        return "channel: close expired"
    opener_amount: uint256 = convert(close.opener_balance, uint256)
    partner_amount: uint256 = convert(close.partner_balance, uint256)
    if opener_amount + partner_amount != state.opener_deposit + state.partner_deposit:
        return "channel: balances are not the pot"
    digest: bytes32 = self._close_digest(id, close.opener_balance, close.partner_balance, close.expiry)
    if msg.sender != params.opener and not self._signed(digest, close.opener_signature, params.opener_key):
        return "channel: opener has not signed"
    if msg.sender != params.partner and not self._signed(digest, close.partner_signature, params.partner_key):
        return "channel: partner has not signed"
    self._clear(id, params, state)
    self._pay(id, params, opener_amount, partner_amount)
    return ""


@internal
def _begin(id: bytes32, params: Params) -> State:
    """
    @dev Start the challenge in the name of the caller. The caller of this function writes the state back.
    """
    assert msg.sender == params.opener or msg.sender == params.partner, "channel: not a party"
    state: State = self._existing(id)
    assert state.closes_at == 0, "channel: closing"
    state.closes_at = block.timestamp + convert(params.period, uint256)
    log Closing(channel=id, closer=msg.sender, closes_at=state.closes_at)
    return state


@internal
def _file(id: bytes32, params: Params, voucher: Voucher, signature: Signature, state: State):
    """
    @dev File a voucher of the caller's, in place of an earlier one, and write the channel's state.
    """
    self._check_voucher(id, params, voucher, signature)
    written: State = state
    if msg.sender == params.opener:
        written.opener_filed = True
    else:
        written.partner_filed = True
    if voucher.locked != 0:
        written.locked = True
        self.trees[id][msg.sender] = voucher.locks_root
    self.channels[id] = self._pack(written)
    self.filings[id][msg.sender] = self._pack_filing(Filing(
        amount=convert(voucher.amount, uint256),
        locked=convert(voucher.locked, uint256),
        locked_until=convert(voucher.locked_until, uint256),
        serial=self._unpack_filing(self.filings[id][msg.sender]).serial + 1,
    ))
    log Filed(channel=id, payee=msg.sender, nonce=voucher.nonce, amount=voucher.amount)


@internal
def _prove(id: bytes32, claims: DynArray[Claim, MAX_CLAIMS]):
    """
    @dev Move ticks proven by the caller from `locked` to `amount` of its filing.
    """
    word: uint256 = self.filings[id][msg.sender]
    assert word != 0, "channel: nothing filed"
    filing: Filing = self._unpack_filing(word)
    tree: bytes32 = self.trees[id][msg.sender]
    state: State = self._unpack(self.channels[id])
    for claim: Claim in claims:
        assert claim.lock.expiry != 0 or block.timestamp < state.closes_at, "channel: challenge over"
        place: bytes32 = keccak256(abi_encode(id, msg.sender, filing.serial, claim.lock.index))
        earned: uint256 = self._earn(tree, filing.locked_until, claim, self.proven[place])
        earned = min(earned, filing.locked)
        filing.amount += earned
        filing.locked -= earned
        count: uint256 = convert(claim.count, uint256)
        self.proven[place] = (convert(claim.preimage, uint256) & ~UINT16) | count
        log Proven(channel=id, payee=msg.sender, root=claim.lock.root, count=count, preimage=claim.preimage)
    self.filings[id][msg.sender] = self._pack_filing(filing)


@internal
@view
def _earn(tree: bytes32, locked_until: uint256, claim: Claim, mark: uint256) -> uint256:
    """
    @dev The worth of the ticks that `claim` proves beyond `mark`, the entry of `proven` (0: none yet).
    """
    lock: Lock = claim.lock
    if lock.expiry != 0:
        expiry: uint256 = convert(lock.expiry, uint256)
        assert block.timestamp < expiry, "channel: lock expired"
        # Settling lets go of everything at `locked_until`.
        assert expiry <= locked_until, "channel: lock outlives its voucher"
    assert self._in_tree(lock, tree), "channel: lock not in the voucher"
    count: uint256 = convert(claim.count, uint256)
    done: uint256 = mark & UINT16
    assert count > done, "channel: ticks already proven"
    assert claim.count <= lock.ticks, "channel: more ticks than locked"
    end: uint256 = convert(self._walk(claim.preimage, count - done), uint256)
    if mark == 0:
        assert end == convert(lock.root, uint256), "channel: bad preimage"
    else:
        assert end & ~UINT16 == mark & ~UINT16, "channel: bad preimage"
    return (count - done) * convert(lock.tick_value, uint256)


@internal
@view
def _walk(preimage: bytes32, count: uint256) -> bytes32:
    """
    @dev SHA-256 `count` times over.
    """
    at: bytes32 = preimage
    for _: uint256 in range(count, bound=UINT16):
        at = sha256(at)
    return at


@internal
@pure
def _in_tree(lock: Lock, tree: bytes32) -> bool:
    """
    @dev Whether `lock` stands at its index of the canonical tree with this root.
    """
    node: bytes32 = keccak256(
        concat(b"\x00", abi_encode(lock.index, lock.root, lock.tick_value, lock.ticks, lock.expiry))
    )
    index: uint256 = convert(lock.index, uint256)
    for sibling: bytes32 in lock.branch:
        if index & 1 == 0:
            node = keccak256(concat(b"\x01", node, sibling))
        else:
            node = keccak256(concat(b"\x01", sibling, node))
        index >>= 1
    return index == 0 and node == tree


@internal
@view
def _check_voucher(id: bytes32, params: Params, voucher: Voucher, signature: Signature):
    """
    @dev Pass where the caller is the payee of `voucher` and may file it.
    """
    payer_key: address = params.opener_key
    if msg.sender == params.opener:
        assert params.two_way, "channel: one-way"
        payer_key = params.partner_key
    else:
        assert msg.sender == params.partner, "channel: not a party"
    assert convert(voucher.amount, uint256) + convert(voucher.locked, uint256) <= UINT96, "channel: voucher too large"
    assert (
        convert(voucher.locked_until, uint256) <= block.timestamp + MAX_PERIOD
    ), "channel: locked for too long"
    assert self._signed(self._voucher_digest(id, voucher), signature, payer_key), "channel: payer has not signed"


@internal
@view
def _live(word: uint256) -> Filing:
    """
    @dev A filing as it counts after the challenge: nothing is locked once the last expiry has passed.
    """
    filing: Filing = self._unpack_filing(word)
    if block.timestamp >= filing.locked_until:
        filing.locked = 0
    return filing


@internal
@pure
def _balance(credit: uint256, debit: uint256, pot: uint256) -> uint256:
    """
    @dev A side's balance: netted first, clamped once to the pot.
    """
    if credit <= debit:
        return 0
    return min(credit - debit, pot)


@internal
def _clear(id: bytes32, params: Params, state: State):
    """
    @dev Free the channel's slots. Marks of proven ticks stay: nothing can reach them again.
    """
    self.channels[id] = 0
    if state.opener_filed:
        self.filings[id][params.opener] = 0
    if state.partner_filed:
        self.filings[id][params.partner] = 0
    if state.locked:
        self.trees[id][params.opener] = empty(bytes32)
        self.trees[id][params.partner] = empty(bytes32)
    if state.part_paid:
        self.paid[id] = 0


@internal
def _pay(id: bytes32, params: Params, opener_amount: uint256, partner_amount: uint256):
    """
    @dev Credit both sides with the last of a channel.
    """
    self._credit(params.opener, opener_amount)
    self._credit(params.partner, partner_amount)
    log Settled(channel=id, opener_amount=opener_amount, partner_amount=partner_amount)


# -- tokens and balances, inside --


@internal
def _pull(owner: address, amount: uint96):
    """
    @dev Take tokens from `owner`'s wallet by its allowance, and see that all of them arrive.
    """
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    assert extcall IERC20(TOKEN).transferFrom(
        owner, self, convert(amount, uint256), default_return_value=True
    ), "channel: token refused"
    self._check_arrival(before, amount)


@internal
@view
def _check_arrival(before: uint256, amount: uint96):
    """
    @dev Pass where exactly `amount` arrived and all that is here fits uint96, so that no credit can ever overflow.
    """
    now: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    assert now == before + convert(amount, uint256), "channel: token took a fee"
    assert now <= UINT96, "channel: too many tokens"


@internal
def _credit(owner: address, amount: uint256):
    """
    @dev Add to a balance. It cannot carry into the counter: all balances together fit uint96.
    """
    if amount != 0:
        account: uint256 = self.accounts[owner]
        assert (account & UINT96) + amount <= UINT96, "channel: balance too large"
        self.accounts[owner] = account + amount


@internal
def _debit(owner: address, amount: uint256):
    """
    @dev Take from a balance.
    """
    account: uint256 = self.accounts[owner]
    assert account & UINT96 >= amount, "channel: balance too low"
    self.accounts[owner] = account - amount


# -- forms, inside --


@internal
@view
def _id(params: Params) -> bytes32:
    """
    @dev The channel's id.
    """
    return keccak256(abi_encode(SEPARATOR, TOKEN, params))


@internal
@view
def _voucher_digest(id: bytes32, voucher: Voucher) -> bytes32:
    """
    @dev What a payer's voucher key signs.
    """
    return self._digest(keccak256(abi_encode(VOUCHER_TYPE, id, voucher)))


@internal
@view
def _close_digest(id: bytes32, opener_balance: uint96, partner_balance: uint96, expiry: uint64) -> bytes32:
    """
    @dev What both voucher keys sign to end a channel together.
    """
    return self._digest(keccak256(abi_encode(CLOSE_TYPE, id, opener_balance, partner_balance, expiry)))


@internal
@view
def _digest(struct_hash: bytes32) -> bytes32:
    """
    @dev The EIP-712 digest of a struct under this contract's domain.
    """
    return keccak256(concat(b"\x19\x01", SEPARATOR, struct_hash))


@internal
@pure
def _signed(digest: bytes32, signature: Signature, signer: address) -> bool:
    """
    @dev Whether `signer` (never zero) made `signature`, in its one canonical form.
    """
    if signature.v != 27 and signature.v != 28:
        return False
    if convert(signature.s, uint256) > HALF_ORDER:
        return False
    return ecrecover(digest, signature.v, signature.r, signature.s) == signer


@internal
@view
def _existing(id: bytes32) -> State:
    """
    @dev The state of a channel that has not been paid out, not even in part.
    """
    word: uint256 = self.channels[id]
    assert word != 0, "channel: no such channel"
    state: State = self._unpack(word)
    assert not state.part_paid, "channel: part paid out"
    return state


@internal
@pure
def _pack(state: State) -> uint256:
    """
    @dev A channel's slot. Deposits fit 96 bits because all tokens here do, times fit 40 bits for 34,000 years.
    """
    word: uint256 = EXISTS | state.opener_deposit | (state.partner_deposit << 96) | (state.closes_at << 192)
    if state.opener_filed:
        word |= OPENER_FILED
    if state.partner_filed:
        word |= PARTNER_FILED
    if state.part_paid:
        word |= PART_PAID
    if state.locked:
        word |= LOCKED
    return word


@internal
@pure
def _unpack(word: uint256) -> State:
    """
    @dev The state in a channel's slot.
    """
    return State(
        opener_deposit=word & UINT96,
        partner_deposit=(word >> 96) & UINT96,
        closes_at=(word >> 192) & UINT40,
        opener_filed=word & OPENER_FILED != 0,
        partner_filed=word & PARTNER_FILED != 0,
        part_paid=word & PART_PAID != 0,
        locked=word & LOCKED != 0,
    )


@internal
@pure
def _pack_filing(filing: Filing) -> uint256:
    """
    @dev A filing's slot. `_check_voucher` bounds the first three. The serial would wrap after 2**24 filings; then old
         marks of proven ticks count against the payee that made them, and against nobody else.
    """
    return filing.amount | (filing.locked << 96) | (filing.locked_until << 192) | (filing.serial << 232)


@internal
@pure
def _unpack_filing(word: uint256) -> Filing:
    """
    @dev The filing in a filing's slot.
    """
    return Filing(
        amount=word & UINT96,
        locked=(word >> 96) & UINT96,
        locked_until=(word >> 192) & UINT40,
        serial=word >> 232,
    )
