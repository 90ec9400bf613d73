# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Penstock Channel
@license Apache-2.0
@notice Payment channels over one ERC-20 token: open, add, claim, close together or alone, prove ticks, settle.
@dev The forms (ids, EIP-712 types, lock trees) are those of `penstock.core.channel`. There is no owner, no pause and no
     upgrade. What holds throughout:

     - A balance is credited inside this contract; only `withdraw` moves tokens out, and only to the caller.
     - An id is never used twice. An ordinary counter (below 2**63) only rises, in the slot of the opener's balance, so
       that the channel's own slot is cleared at its end. A counter apart (from 2**63 up) leaves the account alone,
       which spares its slot in openings that are not paid from it; the channel's slot then keeps a tombstone.
     - No sum overflows: a deposit is refused where it would take the contract's tokens above uint96.
     - A token may call back. The functions that call it are `@nonreentrant`; they use no state that was read before the
       call, and no call follows a write but the last one of `withdraw`. A wallet that is asked for its signature is
       called by STATICCALL. The others call nobody.
     - What a side has drawn from an open channel stays counted: the balances of a close and of a withdrawal are totals.
     - Time: a voucher is filed and a lock without expiry proven while now < closes_at; a lock with an expiry is proven
       while now < expiry; what both signed is good while now <= expiry; settling starts at closes_at.

     A token that changes balances by itself (rebasing) cannot be kept here: nothing notices when it shrinks.

     Words: `terms` is counter (64 bits) | two_way (1) | period (seconds, the rest), from the lowest bit up. Accounts
     and keys are words, too: whoever opens checks that they are addresses, and the id commits to them. A key that is
     left zero is its party's own account. A signature is r, and s with the recovery bit on top (EIP-2098).

     A proof of ticks is a row of words: index (16 bits) | ticks (16) | count (16) | depth (8) | expiry (64, seconds; 0
     is none) | tick value (96) of the lock; its root; the preimage that proves `count` ticks; and `depth` siblings from
     its leaf up to the voucher's tree. Several follow one another.
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


interface IERC1271:
    def isValidSignature(digest: bytes32, signature: Bytes[MAX_WALLET_SIGNATURE]) -> bytes4: view


# What is fixed when a channel opens. The id commits to it, with the keys resolved.
struct Params:
    opener: uint256
    partner: uint256
    opener_key: uint256  # the plain key that signs the opener's vouchers
    partner_key: uint256
    terms: uint256


# A cumulative promise in one direction: `amount` for good, `locked` by the locks under `locks_root`.
struct Voucher:
    nonce: uint256
    amount: uint256
    locked: uint256
    locked_until: uint256
    locks_root: bytes32


# What both voucher keys sign, of a close or a withdrawal. `split`: the opener's total (96 bits) | the partner's (96) |
# expiry (64, seconds).
struct Consent:
    params: Params
    split: uint256
    opener_signature: uint256[2]
    partner_signature: uint256[2]


# A proof of ticks, unpacked.
struct Proof:
    index: uint256
    ticks: uint256
    count: uint256
    expiry: uint256
    tick_value: uint256
    root: bytes32
    preimage: bytes32
    tree: bytes32  # the root of the tree that its branch leads to; zero where the index is not in that tree
    next: uint256  # where the next proof begins


# What an id is the hash of, keys resolved. A batch keeps one, and one of the next two, for all its rows, so that each
# row writes only what is its own.
struct Preimage:
    seed: bytes32
    params: Params


# What a row of closes, or of claims, has its EIP-712 hash from.
struct SignedClose:
    type: bytes32
    id: bytes32
    opener_balance: uint256
    partner_balance: uint256
    expiry: uint256


struct SignedVoucher:
    type: bytes32
    id: bytes32
    voucher: Voucher


MIN_PERIOD: constant(uint256) = 60
MAX_PERIOD: constant(uint256) = 365 * 86_400
MAX_DEPTH: constant(uint256) = 10  # 1,024 locks
MAX_WORDS: constant(uint256) = 104  # of proofs in one transaction: eight of the deepest; the rest follow in others
FAR: constant(uint256) = 1_024  # ticks; a proof of no more begins at the root again, for 270,000 gas at most
MAX_ROWS: constant(uint256) = 64
MAX_WALLET_SIGNATURE: constant(uint256) = 1_024  # bytes; a multisignature of fifteen owners
UINT160: constant(uint256) = 2**160 - 1
UINT128: constant(uint256) = 2**128 - 1
UINT96: constant(uint256) = 2**96 - 1
UINT64: constant(uint256) = 2**64 - 1
UINT40: constant(uint256) = 2**40 - 1
UINT24: constant(uint256) = 2**24 - 1
UINT16: constant(uint256) = 2**16 - 1
HALF_ORDER: constant(uint256) = (  # of secp256k1
    115792089237316195423570985008687907852837564279074904382605163141518161494337 // 2
)

# Of `terms`.
APART: constant(uint256) = 1 << 63
TWO_WAY: constant(uint256) = 1 << 64
PERIOD_SHIFT: constant(uint256) = 65

# Of a channel's slot, numbers of bits. The partner's flag stands one above the opener's.
CLOSES_AT: constant(uint256) = 192
EXISTS: constant(uint256) = 232
PAID: constant(uint256) = 233  # `paid` has an entry
PART_SETTLED: constant(uint256) = 234  # settled but for open locks
FILED: constant(uint256) = 236  # there is a filing in this side's favour
ITSELF: constant(uint256) = 238  # the payee made it itself: nobody answers for it any more
LOCKED: constant(uint256) = 240  # `held` and `trees` have entries
LATE: constant(uint256) = 242  # a late filing with locks has kept the challenge open
RELEASED: constant(uint256) = 244  # vouchers below `floors` are worthless
RESTARTED: constant(uint256) = 246  # a release has restarted the challenge
# What stands from CLOSES_AT up in an open channel from which nothing but claims has been paid.
PLAIN: constant(uint256) = 1 << (EXISTS - CLOSES_AT)
TOMBSTONE: constant(uint256) = 1  # all that is left of a channel with a counter apart

WALLET_SAYS_YES: constant(bytes4) = 0x1626ba7e  # EIP-1271


DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256(
    "Voucher(bytes32 channel,uint64 nonce,uint96 amount,uint96 locked,uint64 lockedUntil,bytes32 locksRoot)"
)
CLOSE_TYPE: constant(bytes32) = keccak256(
    "Close(bytes32 channel,uint96 openerBalance,uint96 partnerBalance,uint64 expiry)"
)
WITHDRAWAL_TYPE: constant(bytes32) = keccak256(
    "Withdrawal(bytes32 channel,uint96 openerTotal,uint96 partnerTotal,uint64 expiry)"
)
RELEASE_TYPE: constant(bytes32) = keccak256("Release(bytes32 channel,uint64 nonce,uint96 amount)")
ANSWER_TYPE: constant(bytes32) = keccak256("Answer(bytes32 channel,bytes32 content,uint64 sequence)")
OPEN_TYPE: constant(bytes32) = keccak256("Open(bytes32 channel,uint96 deposit,uint96 fee,uint64 expiry)")
ADD_TYPE: constant(bytes32) = keccak256("Add(bytes32 channel,uint96 total,uint96 fee,uint64 expiry)")

TOKEN: immutable(address)
# Fixed at deployment, and not renewed if the chain ever changes its id: open channels would lose their ids.
SEPARATOR: immutable(bytes32)
SEED: immutable(bytes32)  # separator and token: where every id begins

# owner -> the lowest ordinary counter that is still free (64 bits) | balance (192)
accounts: HashMap[uint256, uint256]
# id -> opener deposit (96) | partner deposit (96) | closes_at (40; 0 while nobody has begun to close) | flags.
# 0 where there is no channel. A one-way channel has no partner deposit: there the field is what the partner has claimed
# while the channel is open, and what it has filed once it closes (the claimed part has moved to `paid`).
channels: HashMap[bytes32, uint256]
# id -> filed in the opener's favour (96) | in the partner's (96), in two-way channels; ticks proven are counted
filings: HashMap[bytes32, uint256]
# id -> whether the payee is the partner -> locked (96) | locked_until (40) | serial of the filing (24) | nonce (64)
held: HashMap[bytes32, HashMap[bool, uint256]]
# id -> whether the payee is the partner -> the lock tree of the filed voucher
trees: HashMap[bytes32, HashMap[bool, bytes32]]
# (id, payee, serial, index // 16) -> the ticks proven of sixteen locks that are neighbours (16 bits each)
proven: HashMap[bytes32, uint256]
# id -> paid to the opener (96) | paid to the partner (96), before the channel's end
paid: HashMap[bytes32, uint256]
# id -> whether the payee is the partner -> the lowest nonce that a release leaves
floors: HashMap[bytes32, HashMap[bool, uint256]]
# id -> whether the payee is the partner -> the lowest sequence of an answer with a voucher that is still good
sequences: HashMap[bytes32, HashMap[bool, uint256]]
# (id, payee, serial, index) -> ticks proven (16) | the upper 240 bits of their preimage, from where a later proof goes
# on. Kept of proofs above FAR only: a slot for each of hundreds of locks would cost more than all the rest.
marks: HashMap[bytes32, uint256]


event Deposited:
    owner: indexed(address)
    amount: uint256


event Withdrawn:
    owner: indexed(address)
    amount: uint256


# All that an id commits to, keys resolved, so that a party that lost its records can still leave. `open` alone logs
# less: its own calldata says it all.
event Opened:
    channel: indexed(bytes32)
    opener: indexed(address)
    partner: indexed(address)
    opener_key: address
    partner_key: address
    terms: uint256


# The channel's word has the sums.
event Added:
    channel: indexed(bytes32)


event Claimed:
    channel: indexed(bytes32)
    total: uint256


# What the partner of many channels got by one transaction, rows that took the long way aside. Its rows name the
# channels.
event Taken:
    partner: indexed(address)
    closed: bool
    gains: uint256


event WithdrawnTogether:
    channel: indexed(bytes32)
    totals: uint256  # the opener's (96 bits) | the partner's (96)


event Closing:
    channel: indexed(bytes32)
    closes_at: uint256


# `filing`: amount (96 bits) | nonce (64) | whether the payee is the partner (1) | when the challenge ends (the rest)
event Filed:
    channel: indexed(bytes32)
    filing: uint256


# The preimage is what a hub lifts to claim on its other side.
event Proven:
    channel: indexed(bytes32)
    root: indexed(bytes32)
    count: uint256
    preimage: bytes32


event Expired:
    channel: indexed(bytes32)
    root: indexed(bytes32)
    freed: uint256


# `release`: amount (96 bits) | nonce (64) | whether the payee is the partner (1) | when the challenge ends (the rest)
event Released:
    channel: indexed(bytes32)
    release: uint256


# What was credited now, the opener's (96 bits) | the partner's (96) | whether open locks still hold a rest (1).
event Settled:
    channel: indexed(bytes32)
    amounts: uint256


event Skipped:
    channel: indexed(bytes32)
    reason: String[32]


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
    SEED = keccak256(abi_encode(SEPARATOR, token))


# -- balances --


@external
@nonreentrant
def deposit(amount: uint96):
    """
    @notice Move tokens from the caller's wallet into its balance here. Needs an allowance.
    @param amount Token units.
    """
    self._pull(self._sender(), convert(amount, uint256))
    self._credit(self._sender(), convert(amount, uint256))
    log Deposited(owner=msg.sender, amount=convert(amount, uint256))


@external
@nonreentrant
def withdraw(amount: uint96):
    """
    @notice Move token units from the caller's balance into its wallet.
    @param amount Token units.
    """
    self._debit(self._sender(), convert(amount, uint256))
    log Withdrawn(owner=msg.sender, amount=convert(amount, uint256))
    if not extcall IERC20(TOKEN).transfer(msg.sender, convert(amount, uint256), default_return_value=True):
        self._refuse("token refused")


# -- opening and adding --


@external
def open(place: uint256, terms: uint256):
    """
    @notice Open a channel from the caller's balance, with the two accounts as voucher keys.
    @dev The cheapest way in: two words of calldata, which hold all that the id commits to, and an empty anonymous log
         by which a node finds the transaction. What is computed twice is cheaper so than kept.
    @param place The partner (160 bits) | the deposit (96, token units; may be 0).
    @param terms Counter, which must be ordinary, direction and period.
    """
    partner: uint256 = place & UINT160
    # A sum of truths costs less than `or`, which jumps.
    if (
        convert(partner == 0, uint256)
        | convert(partner == convert(msg.sender, uint256), uint256)
        | convert(unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD) > MAX_PERIOD - MIN_PERIOD, uint256)
    ) != 0:
        self._check_terms(convert(msg.sender, uint256), partner, convert(msg.sender, uint256), partner, terms)
    counter: uint256 = terms & UINT64
    account: uint256 = self.accounts[convert(msg.sender, uint256)]
    if convert(counter < account & UINT64, uint256) | convert(counter >= APART, uint256) != 0:
        self._refuse_counter()
    if account >> 64 < place >> 160:
        self._refuse("balance too low")
    self.accounts[convert(msg.sender, uint256)] = unsafe_add(
        unsafe_sub(account >> 64, place >> 160) << 64, unsafe_add(counter, 1)
    )
    # The slot is free: no two channels of an opener have the same counter.
    self.channels[
        keccak256(
            abi_encode(
                SEED, convert(msg.sender, uint256), partner, convert(msg.sender, uint256), partner, terms
            )
        )
    ] = (place >> 160) | (1 << EXISTS)
    raw_log([], b"")


@external
def open_with_keys(place: uint256, terms: uint256, opener_key: uint256, partner_key: uint256):
    """
    @notice Open a channel from the caller's balance, with voucher keys of its own choice.
    @param place The partner (160 bits) | the deposit (96, token units; may be 0).
    @param terms Counter, direction and period.
    @param opener_key The plain key that signs the caller's vouchers; zero: its account.
    @param partner_key The partner's; zero: its account.
    """
    self._debit(self._sender(), place >> 160)
    self._open(self._placed(place, terms, opener_key, partner_key), place >> 160)


@external
@nonreentrant
def open_from_token(place: uint256, terms: uint256):
    """
    @notice Open a channel straight from the caller's wallet, with the two accounts as voucher keys. Needs an allowance.
            The token's own log of the transfer leads to the transaction.
    @param place The partner (160 bits) | the deposit (96, token units).
    @param terms Counter, which must be apart, direction and period.
    """
    partner: uint256 = place & UINT160
    if (
        convert(partner == 0, uint256)
        | convert(partner == convert(msg.sender, uint256), uint256)
        | convert(unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD) > MAX_PERIOD - MIN_PERIOD, uint256)
    ) != 0:
        self._check_terms(convert(msg.sender, uint256), partner, convert(msg.sender, uint256), partner, terms)
    self._pull(convert(msg.sender, uint256), place >> 160)
    id: bytes32 = keccak256(
        abi_encode(SEED, convert(msg.sender, uint256), partner, convert(msg.sender, uint256), partner, terms)
    )
    if convert(terms & APART == 0, uint256) | self.channels[id] != 0:
        self._refuse_counter()
    self.channels[id] = (place >> 160) | (1 << EXISTS)


@external
@nonreentrant
def open_from_token_with_keys(place: uint256, terms: uint256, opener_key: uint256, partner_key: uint256):
    """
    @notice Open a channel straight from the caller's wallet, with any counter and voucher keys. Needs an allowance.
    @param place The partner (160 bits) | the deposit (96, token units).
    @param terms Counter, direction and period.
    @param opener_key The plain key that signs the caller's vouchers; zero: its account.
    @param partner_key The partner's; zero: its account.
    """
    self._pull(self._sender(), place >> 160)
    self._open(self._placed(place, terms, opener_key, partner_key), place >> 160)


@external
@nonreentrant
def open_with_permit(
    place: uint256, terms: uint256, opener_key: uint256, partner_key: uint256, deadline: uint256, signature: uint256[2]
):
    """
    @notice Open a channel from the caller's wallet by an EIP-2612 permit of exactly the deposit.
    @dev The permit may have been used by somebody who saw it: its failure is ignored, the allowance decides.
         A permit names no channel, so that only the opener may send it.
    @param place The partner (160 bits) | the deposit (96, token units).
    @param terms Counter, direction and period.
    @param opener_key The plain key that signs the caller's vouchers; zero: its account.
    @param partner_key The partner's; zero: its account.
    @param deadline The permit's, in seconds.
    @param signature The permit's.
    """
    permitted: bool = raw_call(
        TOKEN,
        abi_encode(
            msg.sender,
            self,
            place >> 160,
            deadline,
            27 + (signature[1] >> 255),
            signature[0],
            signature[1] & (2**255 - 1),
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._pull(self._sender(), place >> 160)
    self._open(self._placed(place, terms, opener_key, partner_key), place >> 160)


@external
@nonreentrant
def open_with_authorization(
    params: Params, sums: uint256, valid_after: uint256, valid_before: uint256, signature: uint256[2]
):
    """
    @notice Open a channel by the opener's EIP-3009 authorization of deposit and fee, whose nonce commits to the channel
            and to both. Anybody may send it, and gets the fee.
    @dev The signature binds it all together: nothing else in this contract redeems authorizations, and the token
         redeems them for no other caller. Its nonce is keccak(id, sums).
    @param params The channel.
    @param sums The deposit (96 bits; not 0) | the sender's fee (96), token units.
    @param valid_after The authorization's, in seconds.
    @param valid_before The authorization's, in seconds.
    @param signature The opener's, over ReceiveWithAuthorization(opener, this contract, deposit + fee, ...).
    """
    deposit: uint256 = sums & UINT96
    total: uint256 = deposit + (sums >> 96)
    # A token that takes any call for granted (wrapped ether does) checks no signature. Then nothing arrives; and
    # nothing is what a stranger would need to use up the opener's counters.
    if deposit == 0:
        self._refuse("nothing authorized")
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    extcall IERC3009(TOKEN).receiveWithAuthorization(
        convert(params.opener, address),
        self,
        total,
        valid_after,
        valid_before,
        keccak256(abi_encode(self._id(params), sums)),
        convert(27 + (signature[1] >> 255), uint8),
        convert(signature[0], bytes32),
        convert(signature[1] & (2**255 - 1), bytes32),
    )
    self._check_arrival(before, total)
    self._open(params, deposit)
    self._credit(self._sender(), sums >> 96)


@external
def open_signed(params: Params, sums: uint256, expiry: uint256, signature: Bytes[MAX_WALLET_SIGNATURE]):
    """
    @notice Open a channel from the opener's balance as the opener's account signed. Anybody may send it, and gets the
            fee.
    @param params The channel.
    @param sums The deposit (96 bits) | the sender's fee (96), token units.
    @param expiry Until when the signature is good, in seconds.
    @param signature The opener's over Open: 64 bytes (EIP-2098), or what its wallet takes (EIP-1271).
    """
    content: bytes32 = keccak256(abi_encode(OPEN_TYPE, self._id(params), sums & UINT96, sums >> 96, expiry))
    self._check_account(params.opener, content, expiry, signature)
    self._debit(params.opener, (sums & UINT96) + (sums >> 96))
    self._open(params, sums & UINT96)
    self._credit(self._sender(), sums >> 96)


@external
def add(params: Params, amount: uint96):
    """
    @notice Add to the caller's side of an open channel from its balance.
    @param params The channel; in a one-way channel only the opener adds.
    @param amount Token units.
    """
    self._debit(self._sender(), convert(amount, uint256))
    self._add(params, self._sender(), convert(amount, uint256))


@external
@nonreentrant
def add_from_token(params: Params, amount: uint96):
    """
    @notice Add to the caller's side of an open channel from its wallet. Needs an allowance.
    @param params The channel; in a one-way channel only the opener adds.
    @param amount Token units.
    """
    self._pull(self._sender(), convert(amount, uint256))
    self._add(params, self._sender(), convert(amount, uint256))


@external
def add_signed(
    params: Params, owner: uint256, sums: uint256, expiry: uint256, signature: Bytes[MAX_WALLET_SIGNATURE]
):
    """
    @notice Raise a party's deposit to a total from its balance, as its account signed. Anybody may send it, and gets
            the fee. A total works once, because the deposit then has it.
    @param params The channel; in a one-way channel only the opener adds.
    @param owner The party.
    @param sums Its deposit after it (96 bits) | the sender's fee (96), token units.
    @param expiry Until when the signature is good, in seconds.
    @param signature The owner's over Add: 64 bytes (EIP-2098), or what its wallet takes (EIP-1271).
    """
    id: bytes32 = self._id(params)
    content: bytes32 = keccak256(abi_encode(ADD_TYPE, id, sums & UINT96, sums >> 96, expiry))
    self._check_account(owner, content, expiry, signature)
    deposit: uint256 = self.channels[id] & UINT96
    if owner != params.opener:
        deposit = (self.channels[id] >> 96) & UINT96
    if sums & UINT96 <= deposit:
        self._refuse("total reached")
    amount: uint256 = (sums & UINT96) - deposit
    self._debit(owner, amount + (sums >> 96))
    self._add(params, owner, amount)
    self._credit(self._sender(), sums >> 96)


# -- claiming without an end --


@external
def claim(params: Params, voucher: Voucher, signature: uint256[2]):
    """
    @notice The payee of a one-way channel is paid the voucher's amount, and the channel stays open. Ticks are not paid.
    @param params The channel, open and one-way; the caller is its partner.
    @param voucher The voucher; earlier claims are counted.
    @param signature The opener's voucher key's.
    """
    self._check_payee(params)
    flaw: String[32] = self._claim(self._id(params), params, voucher, signature)
    if len(flaw) != 0:
        self._refuse(flaw)


@external
def claim_many(partner_key: uint256, rows: DynArray[uint256[4], MAX_ROWS]):
    """
    @notice As `claim`, for many channels whose partner is the caller and whose openers' accounts are the voucher keys,
            by vouchers without locks. A row that is not good is skipped, with an event that says why.
    @param partner_key The caller's voucher key; zero: its account.
    @param rows For each: opener (160 bits) | amount (96); terms (128) | nonce (64); and the opener's signature.
    """
    # As in `close_mine`.
    form: Preimage = self._preimage(partner_key)
    signed: SignedVoucher = empty(SignedVoucher)
    signed.type = VOUCHER_TYPE
    gains: uint256 = 0
    for row: uint256[4] in rows:
        form.params.opener = row[0] & UINT160
        form.params.opener_key = form.params.opener
        form.params.terms = row[1] & UINT128
        signed.id = keccak256(abi_encode(form))
        signed.voucher.amount = row[0] >> 160
        signed.voucher.nonce = row[1] >> 128
        word: uint256 = self.channels[signed.id]
        gain: uint256 = unsafe_sub(signed.voucher.amount, (word >> 96) & UINT96)
        below: uint256 = unsafe_sub(gain, 1) | unsafe_sub(word & UINT96, signed.voucher.amount)
        plain: bool = (below >> 255 | (word >> CLOSES_AT) ^ PLAIN | form.params.terms & TWO_WAY) == 0
        digest: bytes32 = self._digest(keccak256(abi_encode(signed)))
        if plain and self._signed(digest, row[2], row[3], form.params.opener):
            self.channels[signed.id] = unsafe_add(word, gain << 96)
            gains = unsafe_add(gains, gain)
        else:
            self._skip(signed.id, self._claim(signed.id, form.params, signed.voucher, [row[2], row[3]]))
    self._took(gains, False)


@external
def withdraw_together(consent: Consent):
    """
    @notice Pay both sides of an open channel up to totals that both signed. The channel stays open.
    @param consent The channel, what each side will have drawn from it in all, until when, and both signatures over
                   Withdrawal; a side that sends this itself needs none.
    """
    id: bytes32 = self._id(consent.params)
    word: uint256 = self._open_word(id)
    drawn: uint256 = 0
    flaw: String[32] = ""
    drawn, flaw = self._consented(id, consent, word, False)
    if len(flaw) != 0:
        self._refuse(flaw)
    totals: uint256 = consent.split & (2**192 - 1)
    kept: uint256 = totals
    if consent.params.terms & TWO_WAY == 0:
        kept &= UINT96
        word = (word & ~(UINT96 << 96)) | (totals ^ kept)
    self.paid[id] = kept
    self.channels[id] = word | (1 << PAID)
    self._share(consent.params, totals - drawn)
    log WithdrawnTogether(channel=id, totals=totals)


# -- ending together --


@external
def close_together(consent: Consent):
    """
    @notice End a channel as both sides signed. Also ends a challenge that has not been settled.
    @dev A side that sends this itself needs no signature.
    @param consent The channel, what each side gets of it in all (together: the whole pot), until when, and both
                   signatures over Close.
    """
    flaw: String[32] = self._close_together(consent)
    if len(flaw) != 0:
        self._refuse(flaw)


@external
def close_many(consents: DynArray[Consent, MAX_ROWS]):
    """
    @notice End many channels as both sides signed. A row that is not good is skipped, with an event that says why.
    @param consents As for `close_together`.
    """
    for consent: Consent in consents:
        self._skip(self._id(consent.params), self._close_together(consent))


@external
def close_mine(partner_key: uint256, rows: DynArray[uint256[4], MAX_ROWS]):
    """
    @notice As `close_many`, for channels whose partner is the caller and whose openers' accounts are the voucher keys:
            a third of the calldata, one credit to the caller, one event for all.
    @param partner_key The caller's voucher key; zero: its account.
    @param rows For each: opener (160 bits) | the partner's balance (96); terms (128) | expiry (64); and the opener's
                signature over Close, in which the opener's balance is what the pot leaves.
    """
    # The plain case (an open channel, into which only the opener has put tokens, and a good row) is spelled out for its
    # gas. Whatever is not plain goes the way of single claims and closes, which says what is wrong with it.
    form: Preimage = self._preimage(partner_key)
    separator: bytes32 = SEPARATOR
    signed: SignedClose = empty(SignedClose)
    signed.type = CLOSE_TYPE
    gains: uint256 = 0
    for row: uint256[4] in rows:
        form.params.opener = row[0] & UINT160
        form.params.opener_key = form.params.opener
        form.params.terms = row[1] & UINT128
        signed.id = keccak256(abi_encode(form))
        word: uint256 = self.channels[signed.id]
        claimed: uint256 = (word >> 96) & UINT96
        signed.partner_balance = row[0] >> 160
        signed.opener_balance = unsafe_sub(word & UINT96, signed.partner_balance)
        signed.expiry = row[1] >> 128
        gain: uint256 = unsafe_sub(signed.partner_balance, claimed)
        s: uint256 = (row[3] << 1) >> 1
        signer: address = ecrecover(
            keccak256(concat(0x1901, separator, keccak256(abi_encode(signed)))),
            unsafe_add(row[3] >> 255, 27),
            row[2],
            s,
        )
        # One comparison, because a jump costs as much as three of these. A difference below zero has its top bit set;
        # what must be equal leaves no bits; a partner's deposit in a two-way channel is not plain. An opener is never
        # zero, as what ecrecover finds where there is nothing to find: `_check_terms` saw to that.
        if (
            (gain | signed.opener_balance | unsafe_sub(signed.expiry, block.timestamp) | unsafe_sub(HALF_ORDER, s))
            >> 255
            | (word >> CLOSES_AT) ^ PLAIN
            | unsafe_mul(claimed, form.params.terms & TWO_WAY)
            | convert(signer, uint256) ^ form.params.opener
        ) == 0:
            self.channels[signed.id] = (form.params.terms >> 63) & TOMBSTONE
            if signed.opener_balance != 0:
                self.accounts[form.params.opener] += signed.opener_balance << 64
            gains = unsafe_add(gains, gain)
        else:
            if form.params.terms & TWO_WAY != 0:
                signed.opener_balance = unsafe_add(signed.opener_balance, claimed)
            flaw: String[32] = self._close_together(
                Consent(
                    params=form.params,
                    split=(signed.opener_balance & UINT96) | (signed.partner_balance << 96) | (signed.expiry << 192),
                    opener_signature=[row[2], row[3]],
                    partner_signature=[0, 0],
                )
            )
            self._skip(signed.id, flaw)
    self._took(gains, True)


# -- ending alone --


@external
def close(params: Params):
    """
    @notice Begin to close without filing a voucher. The other side has `period` seconds to file; so has the caller.
    @param params The channel; the caller is a party to it.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._begin(id, params)
    self.channels[id] = word
    log Closing(channel=id, closes_at=self._closes_at(word))


@external
def file(params: Params, voucher: Voucher, signature: uint256[2], proofs: DynArray[bytes32, MAX_WORDS], begin: bool):
    """
    @notice File the best voucher that the caller received, within the challenge or to begin it. It replaces an earlier
            one of the caller's and the ticks proven under it, whatever the two are worth.
    @param params The channel; the caller is a party that can be paid in it.
    @param voucher The voucher.
    @param signature The payer's voucher key's.
    @param proofs Ticks under the voucher that the caller can prove.
    @param begin Whether this begins to close an open channel.
    """
    id: bytes32 = self._id(params)
    word: uint256 = 0
    if begin:
        word = self._begin(id, params)
    else:
        word = self._challenged(id)
    partner: bool = self._is_partner(params, self._sender())
    word = self._file(id, params, word, partner, voucher, signature, ITSELF)
    if len(proofs) != 0:
        word = self._prove(id, word, params.terms, partner, proofs)
    self.channels[id] = word


@external
def answer(
    params: Params, partner: bool, voucher: Voucher, signature: uint256[2], sequence: uint256, consent: uint256[2]
):
    """
    @notice Within the challenge, file a payee's voucher with its signed answer. Anybody may; the payee's order
            decides: a higher sequence replaces a lower one, and nothing replaces what the payee has filed itself.
            Ticks follow with `prove`.
    @param params The channel.
    @param partner Whether the payee is the partner.
    @param voucher The voucher.
    @param signature The payer's voucher key's.
    @param sequence The answer's.
    @param consent The payee's voucher key's, over Answer(channel, hash of the voucher, sequence).
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._challenged(id)
    if self._has(word, ITSELF, partner):
        self._refuse("the payee has filed itself")
    if sequence < self.sequences[id][partner]:
        self._refuse("a later answer was taken")
    self.sequences[id][partner] = sequence + 1
    self._check_answer(id, self._key_of(params, partner), self._voucher_hash(id, voucher), sequence, consent)
    self.channels[id] = self._file(id, params, word, partner, voucher, signature, FILED)


@external
def prove(params: Params, partner: bool, proofs: DynArray[bytes32, MAX_WORDS]):
    """
    @notice Prove ticks under the voucher that was filed for a payee; a higher count replaces a lower one. A proof of no
            tick gives up what is left of a lock that can no longer be proven, so that it holds nothing back; `settle`
            then pays out what became free. Anybody may do either: more ticks are to the payee's good, and who does not
            want to pay them keeps the preimages.
    @param params The channel.
    @param partner Whether the payee is the partner.
    @param proofs The ticks. A proof goes on where the last one ended, so that a long one can be split.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self.channels[id]
    if not self._has(word, FILED, partner):
        self._refuse("nothing filed")
    self.channels[id] = self._prove(id, word, params.terms, partner, proofs)


@external
def release(
    params: Params, partner: bool, nonce: uint256, amount: uint256, signature: uint256[2], consent: uint256[2]
):
    """
    @notice Within the challenge, hold a payee to its release: vouchers below `nonce` are worthless to it, and it has
            `amount` at least. A filing with locks that falls by this restarts the challenge, once, so that the payee
            can file a newer one. The payer sends it, or anybody with the payer's answer.
    @param params The channel.
    @param partner Whether the payee, who released, is the partner.
    @param nonce The lowest nonce that is still good.
    @param amount What the payee has for it.
    @param signature The payee's voucher key's, over Release.
    @param consent The payer's voucher key's, over Answer(channel, hash of the release, 0), where somebody else sends
                   this.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._challenged(id)
    self._check_direction(params, partner)
    if amount > UINT96 or nonce > UINT64:
        self._refuse("voucher too large")
    content: bytes32 = keccak256(abi_encode(RELEASE_TYPE, id, nonce, amount))
    if not self._signed(self._digest(content), signature[0], signature[1], self._key_of(params, partner)):
        self._refuse("payee has not signed")
    if self._sender() != (params.opener if partner else params.partner):
        self._check_answer(id, self._key_of(params, not partner), content, 0, consent)
    if nonce <= self.floors[id][partner]:
        self._refuse("released further")
    self.floors[id][partner] = nonce

    filed: uint256 = self._filed(id, word, params.terms, partner)
    if self._has(word, LOCKED, partner) and self.held[id][partner] >> 160 < nonce:
        filed = 0
        word &= ~(1 << (ITSELF + convert(partner, uint256)))
        # Only the serial stays: proofs under the fallen voucher count under no other.
        self.held[id][partner] &= UINT24 << 136
        self.trees[id][partner] = empty(bytes32)
        if not self._has(word, RESTARTED, partner):
            word = self._reschedule(self._mark(word, RESTARTED, partner), params.terms)
    filed = max(filed, amount)
    self.channels[id] = self._write(
        id, self._mark(self._mark(word, FILED, partner), RELEASED, partner), params.terms, partner, filed
    )
    log Released(channel=id, release=self._told(word, partner, amount, nonce))


@external
def finish(params: Params, voucher: Voucher, signature: uint256[2], proofs: DynArray[bytes32, MAX_WORDS]):
    """
    @notice The payee of a one-way channel files its best voucher and is paid at once: nobody else can file anything.
            Ticks that it does not prove here are given up, and those of locks with an expiry cannot be proven here.
    @param params The channel, open or in its challenge; the caller is its partner.
    @param voucher The voucher.
    @param signature The opener's voucher key's.
    @param proofs Ticks under the voucher that the caller can prove, ordered by lock index.
    """
    self._check_payee(params)
    id: bytes32 = self._id(params)
    word: uint256 = self._existing(id)
    if self._closes_at(word) != 0:
        word = self._challenged(id)
    self._check_voucher(id, params, word, True, voucher, signature)
    earned: uint256 = 0
    next: uint256 = 0
    at: uint256 = 0
    for _: uint256 in range(MAX_WORDS):
        if at >= len(proofs):
            break
        proof: Proof = self._read(proofs, at)
        if proof.index < next:
            self._refuse("claims out of order")
        self._check_tree(proof, voucher.locks_root)
        # Third parties know the preimages of a lock with an expiry, and the payer must have time for its release.
        if proof.expiry != 0:
            self._refuse("lock needs a challenge")
        earned += self._earn(id, voucher.locked_until, proof, 0, 0)
        next = proof.index + 1
        at = proof.next
    drawn: uint256 = self._drawn(id, word, False)
    pot: uint256 = word & UINT96
    owed: uint256 = voucher.amount + min(earned, voucher.locked)
    total: uint256 = self._within(pot - min(owed, pot), drawn, pot)
    self._clear(id, params.terms, word)
    self._pay(id, params, (total | ((pot - total) << 96)) - drawn)


@external
def settle(params: Params):
    """
    @notice Once the challenge is over, pay out all that no open lock holds back. Anybody may.
            Where locks with an expiry hold something, call again when they are proven or expired.
    @param params The channel.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self.channels[id]
    if block.timestamp < self._ends_at(word):
        self._refuse("challenge not over")

    two_way: bool = params.terms & TWO_WAY != 0
    pot: uint256 = self._pot(word, two_way)
    drawn: uint256 = self._drawn(id, word, two_way)
    to_opener: uint256 = self._filed(id, word, params.terms, False)
    to_partner: uint256 = self._filed(id, word, params.terms, True)
    credit: uint256 = (word & UINT96) + to_opener
    # The opener's total if every open lock goes against it, and if every one goes its way. What lies between is held.
    least: uint256 = self._within(self._balance(credit, to_partner + self._live(id, word, True), pot), drawn, pot)
    most: uint256 = least
    if word >> LOCKED != 0:
        most = self._within(self._balance(credit + self._live(id, word, False), to_partner, pot), drawn, pot)
    amounts: uint256 = (least | ((pot - most) << 96)) - drawn
    if least == most:
        self._clear(id, params.terms, word)
    else:
        self.paid[id] = amounts + drawn
        self.channels[id] = word | (1 << PAID) | (1 << PART_SETTLED)
        amounts |= 1 << 192
    self._pay(id, params, amounts)


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
def account(owner: address) -> (uint256, uint256):
    """
    @notice What an account can withdraw or open channels from, and which counters it has left.
    @param owner An account.
    @return Its token units in this contract, outside channels, and the lowest ordinary counter with which it can still
            open a channel; any higher one will do too.
    """
    word: uint256 = self.accounts[convert(owner, uint256)]
    return word >> 64, word & UINT64


@external
@view
def channel(params: Params) -> (uint256, uint256, uint256):
    """
    @notice Where a channel stands, packed as it is kept.
    @param params A channel.
    @return Its word (see `channels`; 0 where it was never opened or has ended), what the opener (96 bits) and the
            partner (96) have been paid from it so far, and the lowest ordinary counter that the opener has left: below
            it, or with a tombstone, the channel has ended.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self.channels[id]
    return word, self._drawn(id, word, params.terms & TWO_WAY != 0), self.accounts[params.opener] & UINT64


@external
@view
def filing(params: Params, partner: bool) -> (uint256, uint256, uint256, bytes32):
    """
    @notice What was filed in a party's favour in a dispute.
    @param params A channel.
    @param partner Whether the payee is the partner.
    @return Amount with the ticks proven, what is still locked, until when (seconds), and the locks' tree. Zeros where
            nothing was filed.
    """
    id: bytes32 = self._id(params)
    kept: uint256 = self.held[id][partner]
    filed: uint256 = self._filed(id, self.channels[id], params.terms, partner)
    return filed, kept & UINT96, (kept >> 96) & UINT40, self.trees[id][partner]


# -- opening and adding, inside --


@internal
@view
def _placed(place: uint256, terms: uint256, opener_key: uint256, partner_key: uint256) -> Params:
    """
    @dev The parameters of a channel that the caller opens.
    """
    return Params(
        opener=self._sender(),
        partner=place & UINT160,
        opener_key=opener_key,
        partner_key=partner_key,
        terms=terms,
    )


@internal
def _open(params: Params, deposit: uint256):
    """
    @dev Record a channel whose deposit has been taken.
    """
    opener_key: uint256 = self._opener_key(params)
    partner_key: uint256 = self._partner_key(params)
    terms: uint256 = params.terms
    self._check_terms(params.opener, params.partner, opener_key, partner_key, terms)
    id: bytes32 = keccak256(abi_encode(SEED, params.opener, params.partner, opener_key, partner_key, terms))
    used: bool = False
    if terms & APART != 0:
        used = self.channels[id] != 0
    else:
        account: uint256 = self.accounts[params.opener]
        used = terms & UINT64 < account & UINT64
        self.accounts[params.opener] = (account & ~UINT64) | ((terms & UINT64) + 1)
    if used:
        self._refuse_counter()
    self.channels[id] = deposit | (1 << EXISTS)
    log Opened(
        channel=id,
        opener=convert(params.opener, address),
        partner=convert(params.partner, address),
        opener_key=convert(opener_key, address),
        partner_key=convert(partner_key, address),
        terms=terms,
    )


@internal
@pure
def _check_terms(opener: uint256, partner: uint256, opener_key: uint256, partner_key: uint256, terms: uint256):
    """
    @dev Pass where a channel can have these parties, keys and terms.
    """
    if opener == 0 or partner == 0 or opener | partner | opener_key | partner_key > UINT160:
        self._refuse("no address")
    if opener == partner:
        self._refuse("both parties are the same")
    if opener_key == partner_key:
        self._refuse("both keys are the same")
    if unsafe_sub(terms >> PERIOD_SHIFT, MIN_PERIOD) > MAX_PERIOD - MIN_PERIOD:
        self._refuse("period out of bounds")


@internal
def _add(params: Params, owner: uint256, amount: uint256):
    """
    @dev Put `amount`, which has been taken from the owner, on its side.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._open_word(id)
    # No deposit reaches its neighbour's bits: all tokens here fit 96.
    partner: bool = self._is_partner(params, owner)
    self._check_direction(params, not partner)
    word += amount << 96 if partner else amount
    self.channels[id] = word
    log Added(channel=id)


# -- claiming and ending, inside --


@internal
@view
def _preimage(partner_key: uint256) -> Preimage:
    """
    @dev What the ids of a batch are hashes of: the caller is the partner, the opener and the terms are left to each
         row.
    """
    sender: uint256 = self._sender()
    return Preimage(
        seed=SEED,
        params=Params(opener=0, partner=sender, opener_key=0, partner_key=self._key(partner_key, sender), terms=0),
    )


@internal
def _skip(id: bytes32, flaw: String[32]):
    """
    @dev Say what is wrong with a row of a batch, if anything is.
    """
    if len(flaw) != 0:
        log Skipped(channel=id, reason=flaw)


@internal
def _took(gains: uint256, closed: bool):
    """
    @dev Credit the caller once with what the plain rows of a batch have brought it.
    """
    self._credit(self._sender(), gains)
    log Taken(partner=msg.sender, closed=closed, gains=gains)


@internal
def _claim(id: bytes32, params: Params, voucher: Voucher, signature: uint256[2]) -> String[32]:
    """
    @dev Pay the partner of a one-way channel up to a voucher's amount. Returns what is wrong; then nothing changed.
    """
    word: uint256 = self.channels[id]
    if not self._has(word, EXISTS, False):
        return "no such channel"
    if self._closes_at(word) != 0:
        return "closing"
    if params.terms & TWO_WAY != 0:
        return "two-way"
    drawn: uint256 = self._drawn(id, word, False)
    total: uint256 = min(voucher.amount, (word & UINT96) - (drawn & UINT96))
    if total <= drawn >> 96:
        return "nothing more to claim"
    digest: bytes32 = self._digest(self._voucher_hash(id, voucher))
    if not self._signed(digest, signature[0], signature[1], self._opener_key(params)):
        return "payer has not signed"
    self.channels[id] = word + ((total - (drawn >> 96)) << 96)
    self._credit(params.partner, total - (drawn >> 96))
    log Claimed(channel=id, total=total)
    return ""


@internal
def _close_together(consent: Consent) -> String[32]:
    """
    @dev End a channel by consent. Returns what is wrong with the row; then nothing was changed. Empty: done.
    """
    id: bytes32 = self._id(consent.params)
    word: uint256 = self.channels[id]
    drawn: uint256 = 0
    flaw: String[32] = ""
    drawn, flaw = self._consented(id, consent, word, True)
    if len(flaw) == 0:
        self._clear(id, consent.params.terms, word)
        # Neither part borrows from the other: what was drawn is within both totals.
        self._pay(id, consent.params, (consent.split & (2**192 - 1)) - drawn)
    return flaw


@internal
@view
def _consented(id: bytes32, consent: Consent, word: uint256, closing: bool) -> (uint256, String[32]):
    """
    @dev What both sides have drawn already, and what keeps a close or a withdrawal from being what they want; empty
         where nothing does.
    """
    params: Params = consent.params
    if not self._has(word, EXISTS, False):
        return 0, "no such channel"
    if self._has(word, PART_SETTLED, False):
        return 0, "part paid out"
    expiry: uint256 = consent.split >> 192
    if block.timestamp > expiry:
        return 0, "close expired"
    opener_total: uint256 = consent.split & UINT96
    partner_total: uint256 = (consent.split >> 96) & UINT96
    two_way: bool = params.terms & TWO_WAY != 0
    pot: uint256 = self._pot(word, two_way)
    total: uint256 = opener_total + partner_total
    if total > pot or (closing and total != pot):
        return 0, "balances are not the pot"
    drawn: uint256 = self._drawn(id, word, two_way)
    if opener_total < drawn & UINT96 or partner_total < drawn >> 96:
        return 0, "more was drawn"
    purpose: bytes32 = CLOSE_TYPE if closing else WITHDRAWAL_TYPE
    digest: bytes32 = self._digest(keccak256(abi_encode(purpose, id, opener_total, partner_total, expiry)))
    sender: uint256 = convert(msg.sender, uint256)
    r: uint256 = consent.opener_signature[0]
    vs: uint256 = consent.opener_signature[1]
    if sender != params.opener and not self._signed(digest, r, vs, self._opener_key(params)):
        return 0, "opener has not signed"
    r = consent.partner_signature[0]
    vs = consent.partner_signature[1]
    if sender != params.partner and not self._signed(digest, r, vs, self._partner_key(params)):
        return 0, "partner has not signed"
    return drawn, ""


@internal
def _begin(id: bytes32, params: Params) -> uint256:
    """
    @dev Start the challenge in the name of the caller. Returns the channel's word, which the caller of this writes.
    """
    partner: bool = self._is_partner(params, self._sender())
    word: uint256 = self._open_word(id)
    claimed: uint256 = word & (UINT96 << 96)
    if params.terms & TWO_WAY == 0 and claimed != 0:
        # The field is free for the filing.
        self.paid[id] |= claimed
        word = (word & ~claimed) | (1 << PAID)
    return self._reschedule(word, params.terms)


@internal
@view
def _reschedule(word: uint256, terms: uint256) -> uint256:
    """
    @dev Let the challenge last one period from now. Returns the channel's word; an event of the caller tells of it.
    """
    closes_at: uint256 = block.timestamp + (terms >> PERIOD_SHIFT)
    return (word & ~(UINT40 << CLOSES_AT)) | (closes_at << CLOSES_AT)


@internal
def _file(
    id: bytes32,
    params: Params,
    before: uint256,
    partner: bool,
    voucher: Voucher,
    signature: uint256[2],
    itself: uint256,
) -> uint256:
    """
    @dev File a payee's voucher in place of an earlier one. Returns the channel's word.
    """
    self._check_voucher(id, params, before, partner, voucher, signature)
    word: uint256 = self._mark(self._mark(before, FILED, partner), itself, partner)
    if voucher.locked != 0 or self._has(before, LOCKED, partner):
        word = self._hold(id, params.terms, word, partner, voucher)
    log Filed(channel=id, filing=self._told(word, partner, voucher.amount, voucher.nonce))
    return self._write(id, word, params.terms, partner, voucher.amount)


@internal
def _hold(id: bytes32, terms: uint256, before: uint256, partner: bool, voucher: Voucher) -> uint256:
    """
    @dev Keep a filed voucher's locks in place of earlier ones. Returns the channel's word.

         Each side must have half a period to answer: the payer with a release, the payee with a newer voucher where an
         old answer of its came late. So locks filed in the second half of the challenge let it last one period more,
         once, and after that they must come in the first half.
    """
    word: uint256 = before
    if voucher.locked != 0 and block.timestamp + (terms >> (PERIOD_SHIFT + 1)) > self._closes_at(word):
        if self._has(word, LATE, partner):
            self._refuse("too late for locks")
        word = self._reschedule(self._mark(word, LATE, partner), terms)
    serial: uint256 = ((self.held[id][partner] >> 136) & UINT24) + 1
    # Were it to wrap, marks of ticks proven long ago would count again.
    if serial > UINT24:
        self._refuse("filed too often")
    self.held[id][partner] = (
        voucher.locked | (voucher.locked_until << 96) | (serial << 136) | (voucher.nonce << 160)
    )
    self.trees[id][partner] = voucher.locks_root
    return self._mark(word, LOCKED, partner)


@internal
def _prove(
    id: bytes32, before: uint256, terms: uint256, partner: bool, proofs: DynArray[bytes32, MAX_WORDS]
) -> uint256:
    """
    @dev Move ticks proven from `held` to the filing, and what is given up out of it. Returns the channel's word.
    """
    start: uint256 = self.held[id][partner]
    kept: uint256 = start
    tree: bytes32 = self.trees[id][partner]
    filed: uint256 = self._filed(id, before, terms, partner)
    at: uint256 = 0
    for _: uint256 in range(MAX_WORDS):
        if at >= len(proofs):
            break
        proof: Proof = self._read(proofs, at)
        at = proof.next
        self._check_tree(proof, tree)
        end: uint256 = proof.expiry if proof.expiry != 0 else self._closes_at(before)
        place: bytes32 = self._place(id, partner, kept, proof.index >> 4)
        field: uint256 = (proof.index & 15) << 4
        done: uint256 = (self.proven[place] >> field) & UINT16
        reached: uint256 = proof.count
        moved: uint256 = 0
        if reached != 0:
            if block.timestamp >= end:
                self._refuse("lock expired")
            # Somebody was quicker with it, which must not spoil the other proofs.
            if reached <= done:
                continue
            mark: uint256 = 0
            if reached > FAR:
                far: bytes32 = self._place(id, partner, kept, proof.index)
                mark = self.marks[far]
                self.marks[far] = (convert(proof.preimage, uint256) & ~UINT16) | reached
            moved = min(self._earn(id, (kept >> 96) & UINT40, proof, done, mark), kept & UINT96)
            filed += moved
        else:
            if block.timestamp < end:
                self._refuse("lock can still be proven")
            reached = proof.ticks
            if done >= reached:
                self._refuse("nothing left in the lock")
            moved = min((reached - done) * proof.tick_value, kept & UINT96)
            log Expired(channel=id, root=proof.root, freed=moved)
        self.proven[place] ^= (done ^ reached) << field
        kept -= moved
    if kept == start:
        self._refuse("ticks already proven")
    self.held[id][partner] = kept
    return self._write(id, before, terms, partner, filed)


@internal
def _earn(id: bytes32, locked_until: uint256, proof: Proof, done: uint256, mark: uint256) -> uint256:
    """
    @dev The worth of the ticks that a proof adds to those done. It goes on from `mark`, the entry of `marks`; 0: from
         the root.
    """
    # Settling lets go of everything at `locked_until`.
    if proof.expiry > locked_until:
        self._refuse("lock outlives its voucher")
    if proof.count > proof.ticks:
        self._refuse("more ticks than locked")
    link: bytes32 = proof.preimage
    for _: uint256 in range(proof.count - (mark & UINT16), bound=UINT16):
        link = sha256(link)
    # A mark keeps but the upper 240 bits of the last preimage.
    good: bool = link == proof.root
    if mark != 0:
        good = (convert(link, uint256) ^ mark) >> 16 == 0
    if not good:
        self._refuse("bad preimage")
    log Proven(channel=id, root=proof.root, count=proof.count, preimage=proof.preimage)
    return (proof.count - done) * proof.tick_value


@internal
@pure
def _check_tree(proof: Proof, tree: bytes32):
    """
    @dev Pass where the lock of a proof stands at its index of this tree. Zero is no tree.
    """
    if tree == empty(bytes32) or proof.tree != tree:
        self._refuse("lock not in the voucher")


@internal
@pure
def _read(proofs: DynArray[bytes32, MAX_WORDS], at: uint256) -> Proof:
    """
    @dev The proof that begins at word `at`.
    """
    head: uint256 = convert(proofs[at], uint256)
    proof: Proof = Proof(
        index=head & UINT16,
        ticks=(head >> 16) & UINT16,
        count=(head >> 32) & UINT16,
        expiry=(head >> 56) & UINT64,
        tick_value=(head >> 120) & UINT96,
        root=proofs[at + 1],
        preimage=proofs[at + 2],
        tree=empty(bytes32),
        next=at + 3,
    )
    node: bytes32 = keccak256(
        concat(b"\x00", abi_encode(proof.index, proof.root, proof.tick_value, proof.ticks, proof.expiry))
    )
    place: uint256 = proof.index
    for _: uint256 in range((head >> 48) & 255, bound=MAX_DEPTH):
        if place & 1 == 0:
            node = keccak256(concat(b"\x01", node, proofs[proof.next]))
        else:
            node = keccak256(concat(b"\x01", proofs[proof.next], node))
        place >>= 1
        proof.next += 1
    if place == 0:
        proof.tree = node
    return proof


@internal
@pure
def _place(id: bytes32, partner: bool, kept: uint256, index: uint256) -> bytes32:
    """
    @dev Where `proven` or `marks` keeps what was proven, for the filing whose `held` word this is.
    """
    return keccak256(abi_encode(id, partner, (kept >> 136) & UINT24, index))


@internal
@view
def _check_payee(params: Params):
    """
    @dev Pass where the caller is the payee of a one-way channel.
    """
    if self._sender() != params.partner:
        self._refuse("not the partner")
    if params.terms & TWO_WAY != 0:
        self._refuse("two-way")


@internal
@view
def _check_direction(params: Params, partner: bool):
    """
    @dev Pass where this side can be paid in the channel.
    """
    if not partner and params.terms & TWO_WAY == 0:
        self._refuse("one-way")


@internal
@view
def _check_voucher(
    id: bytes32, params: Params, word: uint256, partner: bool, voucher: Voucher, signature: uint256[2]
):
    """
    @dev Pass where a voucher in this side's favour may be filed.
    """
    self._check_direction(params, partner)
    if voucher.amount > UINT96 or voucher.locked > UINT96 - voucher.amount or voucher.nonce > UINT64:
        self._refuse("voucher too large")
    if voucher.locked_until > block.timestamp + MAX_PERIOD:
        self._refuse("locked for too long")
    if self._has(word, RELEASED, partner) and voucher.nonce < self.floors[id][partner]:
        self._refuse("voucher was released")
    digest: bytes32 = self._digest(self._voucher_hash(id, voucher))
    if not self._signed(digest, signature[0], signature[1], self._key_of(params, not partner)):
        self._refuse("payer has not signed")


@internal
@view
def _check_answer(id: bytes32, key: uint256, content: bytes32, sequence: uint256, consent: uint256[2]):
    """
    @dev Pass where this voucher key has signed an answer of this content.
    """
    digest: bytes32 = self._digest(keccak256(abi_encode(ANSWER_TYPE, id, content, sequence)))
    if not self._signed(digest, consent[0], consent[1], key):
        self._refuse("no such answer signed")


@internal
@view
def _filed(id: bytes32, word: uint256, terms: uint256, partner: bool) -> uint256:
    """
    @dev The amount filed in a side's favour, with the ticks proven; 0 where nothing is.
    """
    if not self._has(word, FILED, partner):
        return 0
    if terms & TWO_WAY == 0:
        return (word >> 96) & UINT96
    if partner:
        return self.filings[id] >> 96
    return self.filings[id] & UINT96


@internal
def _write(id: bytes32, word: uint256, terms: uint256, partner: bool, amount: uint256) -> uint256:
    """
    @dev Put down the amount filed in a side's favour. Returns the channel's word.
    """
    # A release and locks together may promise more than there is.
    capped: uint256 = min(amount, UINT96)
    if terms & TWO_WAY == 0:
        return (word & ~(UINT96 << 96)) | (capped << 96)
    if partner:
        self.filings[id] = (self.filings[id] & UINT96) | (capped << 96)
    else:
        self.filings[id] = (self.filings[id] & (UINT96 << 96)) | capped
    return word


@internal
@view
def _live(id: bytes32, word: uint256, partner: bool) -> uint256:
    """
    @dev What is still locked in a side's favour after the challenge: nothing, once the last expiry has passed.
    """
    if not self._has(word, LOCKED, partner):
        return 0
    kept: uint256 = self.held[id][partner]
    return kept & UINT96 if block.timestamp < (kept >> 96) & UINT40 else 0


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
@pure
def _within(total: uint256, drawn: uint256, pot: uint256) -> uint256:
    """
    @dev The opener's total, where what both sides have drawn already cannot be taken back.
    """
    return min(max(total, drawn & UINT96), pot - (drawn >> 96))


@internal
@pure
def _pot(word: uint256, two_way: bool) -> uint256:
    """
    @dev What was put into a channel.
    """
    if two_way:
        return (word & UINT96) + ((word >> 96) & UINT96)
    return word & UINT96


@internal
@view
def _drawn(id: bytes32, word: uint256, two_way: bool) -> uint256:
    """
    @dev What the opener (96 bits) and the partner (96) have been paid from the channel so far.
    """
    drawn: uint256 = 0
    if self._has(word, PAID, False):
        drawn = self.paid[id]
    if not two_way and self._closes_at(word) == 0:
        drawn += word & (UINT96 << 96)
    return drawn


@internal
def _clear(id: bytes32, terms: uint256, word: uint256):
    """
    @dev Free the channel's slots. Marks of proven ticks, floors and sequences stay: nothing can reach them again.
    """
    self.channels[id] = TOMBSTONE if terms & APART != 0 else 0
    if word >> PAID != 0:
        if self._has(word, PAID, False):
            self.paid[id] = 0
        if terms & TWO_WAY != 0:
            self.filings[id] = 0
        if word >> LOCKED != 0:
            for partner: bool in [False, True]:
                self.held[id][partner] = 0
                self.trees[id][partner] = empty(bytes32)


@internal
def _share(params: Params, amounts: uint256):
    """
    @dev Credit both sides: the opener's (96 bits) | the partner's (96).
    """
    self._credit(params.opener, amounts & UINT96)
    self._credit(params.partner, (amounts >> 96) & UINT96)


@internal
def _pay(id: bytes32, params: Params, amounts: uint256):
    """
    @dev Credit both sides with the last of a channel: the opener's (96 bits) | the partner's (96).
    """
    self._share(params, amounts)
    log Settled(channel=id, amounts=amounts)


@internal
@pure
def _ends_at(word: uint256) -> uint256:
    """
    @dev When the challenge of a channel ends that somebody has begun to close.
    """
    closes_at: uint256 = self._closes_at(word)
    if closes_at == 0:
        self._refuse("not closing")
    return closes_at


@internal
@view
def _challenged(id: bytes32) -> uint256:
    """
    @dev The word of a channel in its challenge.
    """
    word: uint256 = self._existing(id)
    if block.timestamp >= self._ends_at(word):
        self._refuse("challenge over")
    return word


@internal
@view
def _open_word(id: bytes32) -> uint256:
    """
    @dev The word of an open channel.
    """
    word: uint256 = self._existing(id)
    if self._closes_at(word) != 0:
        self._refuse("closing")
    return word


@internal
@view
def _existing(id: bytes32) -> uint256:
    """
    @dev The word of a channel that has not been settled, not even in part.
    """
    word: uint256 = self.channels[id]
    if not self._has(word, EXISTS, False):
        self._refuse("no such channel")
    if self._has(word, PART_SETTLED, False):
        self._refuse("part paid out")
    return word


@internal
@pure
def _is_partner(params: Params, party: uint256) -> bool:
    """
    @dev Whether a party is the partner. Nobody but the two parties gets past this.
    """
    if party != params.partner and party != params.opener:
        self._refuse("not a party")
    return party == params.partner


@internal
@pure
def _has(word: uint256, bit: uint256, partner: bool) -> bool:
    """
    @dev Whether a flag stands in a channel's word.
    """
    return (word >> (bit + convert(partner, uint256))) & 1 != 0


@internal
@pure
def _mark(word: uint256, bit: uint256, partner: bool) -> uint256:
    """
    @dev A channel's word with a flag set.
    """
    return word | (1 << (bit + convert(partner, uint256)))


@internal
@pure
def _told(word: uint256, partner: bool, amount: uint256, nonce: uint256) -> uint256:
    """
    @dev What the events of filings and releases tell.
    """
    return amount | (nonce << 96) | (convert(partner, uint256) << 160) | (self._closes_at(word) << 161)


@internal
@pure
def _closes_at(word: uint256) -> uint256:
    """
    @dev When a channel's challenge ends; 0 while it is open.
    """
    return (word >> CLOSES_AT) & UINT40


# -- tokens and balances, inside --


@internal
def _pull(owner: uint256, amount: uint256):
    """
    @dev Take tokens from `owner`'s wallet by its allowance, and see that all of them arrive.
    """
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    if not extcall IERC20(TOKEN).transferFrom(convert(owner, address), self, amount, default_return_value=True):
        self._refuse("token refused")
    self._check_arrival(before, amount)


@internal
@view
def _check_arrival(before: uint256, amount: uint256):
    """
    @dev Pass where exactly `amount` arrived and all that is here fits uint96, so that no deposit can ever overflow.
    """
    now: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    if now != before + amount:
        self._refuse("token took a fee")
    if now > UINT96:
        self._refuse("too many tokens")


@internal
def _credit(owner: uint256, amount: uint256):
    """
    @dev Add to a balance. It cannot carry into the counter, which stands below it.
    """
    if amount != 0:
        self.accounts[owner] += amount << 64


@internal
def _debit(owner: uint256, amount: uint256):
    """
    @dev Take from a balance.
    """
    account: uint256 = self.accounts[owner]
    if account >> 64 < amount:
        self._refuse("balance too low")
    self.accounts[owner] = unsafe_sub(account, amount << 64)


# -- forms and signatures, inside --


@internal
@view
def _id(params: Params) -> bytes32:
    """
    @dev The channel's id.
    """
    return keccak256(
        abi_encode(
            SEED, params.opener, params.partner, self._opener_key(params), self._partner_key(params), params.terms
        )
    )


@internal
@view
def _sender() -> uint256:
    """
    @dev The caller, as a word.
    """
    return convert(msg.sender, uint256)


@internal
@pure
def _key(key: uint256, owner: uint256) -> uint256:
    """
    @dev A voucher key, resolved: zero is its party's account.
    """
    return owner if key == 0 else key


@internal
@pure
def _opener_key(params: Params) -> uint256:
    """
    @dev The opener's voucher key, resolved.
    """
    return self._key(params.opener_key, params.opener)


@internal
@pure
def _partner_key(params: Params) -> uint256:
    """
    @dev The partner's voucher key, resolved.
    """
    return self._key(params.partner_key, params.partner)


@internal
@pure
def _key_of(params: Params, partner: bool) -> uint256:
    """
    @dev A side's voucher key, resolved.
    """
    return self._partner_key(params) if partner else self._opener_key(params)


@internal
@pure
def _voucher_hash(id: bytes32, voucher: Voucher) -> bytes32:
    """
    @dev The EIP-712 hash of a voucher.
    """
    return keccak256(abi_encode(VOUCHER_TYPE, id, voucher))


@internal
@view
def _digest(struct_hash: bytes32) -> bytes32:
    """
    @dev The EIP-712 digest of a struct under this contract's domain.
    """
    return keccak256(concat(b"\x19\x01", SEPARATOR, struct_hash))


@internal
@pure
def _signed(digest: bytes32, r: uint256, vs: uint256, signer: uint256) -> bool:
    """
    @dev Whether `signer` made the signature, in its one canonical form. Nobody signs for the zero address.
    """
    s: uint256 = vs & (2**255 - 1)
    found: uint256 = convert(ecrecover(digest, 27 + (vs >> 255), r, s), uint256)
    return found == signer and found != 0 and s <= HALF_ORDER


@internal
@view
def _check_account(owner: uint256, struct_hash: bytes32, expiry: uint256, signature: Bytes[MAX_WALLET_SIGNATURE]):
    """
    @dev Pass where an account has signed this: by its plain key, or as its wallet says (EIP-1271).
    """
    if block.timestamp > expiry:
        self._refuse("signature expired")
    digest: bytes32 = self._digest(struct_hash)
    if len(signature) == 64:
        if self._signed(
            digest,
            extract32(signature, 0, output_type=uint256),
            extract32(signature, 32, output_type=uint256),
            owner,
        ):
            return
    wallet: address = convert(owner, address)
    if wallet.is_contract:
        if staticcall IERC1271(wallet).isValidSignature(digest, signature) == WALLET_SAYS_YES:
            return
    self._refuse("account has not signed")


@internal
@pure
def _refuse_counter():
    """
    @dev Revert because of an opening's counter. It is said in three places.
    """
    self._refuse("counter used")


@internal
@pure
def _refuse(reason: String[32]):
    """
    @dev Revert, and say why. One place for all: an `assert` with its reason takes a hundred bytes of code wherever it
         stands.
    """
    raise concat("channel: ", reason)
