# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Penstock Escrow
@license Apache-2.0
@notice Deposits over one ERC-20 token, each for one session, released by what the session's meter signs: deposit, file
        readings, contest, end together, settle.
@dev The forms (ids, EIP-712 types, tariff hashes) are those of `penstock.core.escrow`, and a reading is billed as there.
     There is no owner, no pause and no upgrade. What holds throughout:

     - A balance is credited inside this contract; only `withdraw` moves tokens out, and only to the caller.
     - An id is never used twice: the slot of an escrow that has ended stays as its tombstone.
     - drawn <= claimed <= deposit. `drawn`, what the payee has been paid, never falls. What is claimed falls only where
       the payer may still object to it (a contest), or by both parties' keys (an end).
     - A claim can be contested while now < since + window, and is paid from then on: never both. What has matured is
       paid before anything else is claimed, so that no filing can expose it to a contest again.
     - Filing restarts the window of what has not matured. The payee alone files readings that are not the last. Anybody
       files the last one, and there is one: strangers and the payer can put off a payment by one window, once.
     - Readings are taken while now < deadline. Whoever does nothing but call `settle` has its due at deadline + window.
     - No sum overflows: a deposit is refused where it would take the contract's tokens above uint96, and a reading's
       numbers are below 2**63, so that all its products fit 160 bits.
     - A token may call back. The functions that call it are `@nonreentrant`; they use no state that was read before the
       call, and no call follows a write but the last one of `withdraw`. A wallet that is asked for its signature is
       called by STATICCALL. The others call nobody, the payee's contract least of all.

     Trust: readings are as honest as the meter's key. The payer's own defence is its meter's word against the same
     meter's: two readings that no honest meter signs both. With a window of 0 there is no time for that. An end does
     not expire: who signs one can live with it until the escrow's end.

     A token that changes balances by itself (rebasing) cannot be kept here: nothing notices when it shrinks.

     Words: `terms` is counter (64 bits) | deadline (64, seconds) | window (32, seconds) | deposit (96), from the lowest
     bit up. A tariff's step is amount (96 bits, token units per `per`) | start (64, milliseconds). Accounts and keys are
     words, too. A signature is r, and s with the recovery bit on top (EIP-2098).

     An escrow's word is claimed (96 bits) | drawn (96) | since (40, seconds: when what is claimed and not drawn was
     filed) | flags (24): exists, last reading taken, contested, ended. 0 where there never was one. After the end
     claimed = drawn = what the payee got in all.
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


# What is fixed at the deposit. The id commits to it.
struct Params:
    payer: uint256
    payee: uint256
    payer_key: uint256  # the plain keys that agree on an early end
    payee_key: uint256
    meter: uint256  # the key that signs readings
    tariff: bytes32
    terms: uint256


# What the meter signs: the session's total (units of the medium) at an instant (ms). `turns` are the totals at which
# the tariff's steps after the first took effect.
struct Reading:
    sequence: uint256
    at: uint256
    total: uint256
    turns: DynArray[uint256, MAX_STEPS]
    last: bool


# Prices in token units per `per` units of the medium, in order of time.
struct Tariff:
    per: uint256
    steps: DynArray[uint256, MAX_STEPS]


# What both keys sign to end an escrow at once: the payee gets `amount` in all, the payer the rest.
struct SignedEnd:
    params: Params
    amount: uint256
    payer_signature: uint256[2]
    payee_signature: uint256[2]


MAX_STEPS: constant(uint256) = 96  # a day of quarter hours
MAX_WINDOW: constant(uint256) = 30 * 86_400
MAX_LIFE: constant(uint256) = 365 * 86_400  # from the deposit to the deadline
MAX_ROWS: constant(uint256) = 64
MAX_WALLET_SIGNATURE: constant(uint256) = 1_024  # bytes; a multisignature of fifteen owners
MAX_INSTANT: constant(uint256) = 2**53 - 1  # milliseconds
MAX_QUANTITY: constant(uint256) = 2**63 - 1
UINT160: constant(uint256) = 2**160 - 1
UINT96: constant(uint256) = 2**96 - 1
UINT64: constant(uint256) = 2**64 - 1
UINT40: constant(uint256) = 2**40 - 1
UINT32: constant(uint256) = 2**32 - 1
HALF_ORDER: constant(uint256) = (  # of secp256k1
    115792089237316195423570985008687907852837564279074904382605163141518161494337 // 2
)

# Of `terms`, numbers of bits.
DEADLINE: constant(uint256) = 64
WINDOW: constant(uint256) = 128
DEPOSIT: constant(uint256) = 160

# Of an escrow's word, numbers of bits.
DRAWN: constant(uint256) = 96
SINCE: constant(uint256) = 192
FLAGS: constant(uint256) = 232
# The flags. Only an escrow that has ended has the highest.
EXISTS: constant(uint256) = 1
LAST: constant(uint256) = 2
CONTESTED: constant(uint256) = 4
ENDED: constant(uint256) = 8

WALLET_SAYS_YES: constant(bytes4) = 0x1626ba7e  # EIP-1271


DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
READING_TYPE: constant(bytes32) = keccak256(
    "Reading(bytes32 escrow,uint64 sequence,uint64 at,uint64 total,uint64[] turns,bool last)"
)
END_TYPE: constant(bytes32) = keccak256("End(bytes32 escrow,uint96 amount)")
DEPOSIT_TYPE: constant(bytes32) = keccak256("Deposit(bytes32 escrow,uint96 fee,uint64 expiry)")

TOKEN: immutable(address)
# Fixed at deployment, and not renewed if the chain ever changes its id: escrows would lose their ids.
SEPARATOR: immutable(bytes32)
SEED: immutable(bytes32)  # separator and token: where every id begins

# owner -> balance, token units
accounts: HashMap[uint256, uint256]
# id -> the escrow's word
escrows: HashMap[bytes32, uint256]


event Withdrawn:
    owner: indexed(address)
    amount: uint256


# All that an id commits to, so that a party that lost its records can still leave.
event Deposited:
    escrow: indexed(bytes32)
    payer: indexed(address)
    payee: indexed(address)
    payer_key: address
    payee_key: address
    meter: address
    tariff: bytes32
    terms: uint256


# `word` is the escrow's after it, here and below.
event Released:
    escrow: indexed(bytes32)
    word: uint256


# A reading whose claim waits, with its meter's signature: what the payer needs to contest it, even where the payee filed
# it through another contract, so that no calldata shows it.
event Filed:
    escrow: indexed(bytes32)
    reading: Reading
    signature: uint256[2]


event Contested:
    escrow: indexed(bytes32)
    word: uint256


event Settled:
    escrow: indexed(bytes32)
    word: uint256


event Skipped:
    escrow: indexed(bytes32)
    reason: String[32]


@deploy
def __init__(token: address):
    """
    @notice Serve one token, for good.
    @param token The ERC-20 token; an address without code is refused.
    """
    assert token.is_contract, "escrow: token is no contract"
    TOKEN = token
    SEPARATOR = keccak256(
        abi_encode(DOMAIN_TYPE, keccak256("Penstock Escrow"), keccak256("1"), chain.id, self)
    )
    SEED = keccak256(abi_encode(SEPARATOR, token))


# -- balances --


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


# -- depositing --


@external
@nonreentrant
def deposit(params: Params):
    """
    @notice Make the deposit of an escrow from the caller's wallet. Needs an allowance.
    @param params The escrow; the caller is its payer.
    """
    self._check_payer(params)
    self._pull(params.payer, params.terms >> DEPOSIT)
    self._begin(params)


@external
def deposit_from_balance(params: Params):
    """
    @notice Make the deposit of an escrow from the caller's balance.
    @param params The escrow; the caller is its payer.
    """
    self._check_payer(params)
    self._debit(params.payer, params.terms >> DEPOSIT)
    self._begin(params)


@external
@nonreentrant
def deposit_with_permit(params: Params, expiry: uint256, signature: uint256[2]):
    """
    @notice Make the deposit of an escrow from the caller's wallet by an EIP-2612 permit of exactly the deposit.
    @dev The permit may have been used by somebody who saw it: its failure is ignored, the allowance decides.
         A permit names no escrow, so that only the payer may send it.
    @param params The escrow; the caller is its payer.
    @param expiry The permit's deadline, in seconds.
    @param signature The permit's.
    """
    self._check_payer(params)
    permitted: bool = raw_call(
        TOKEN,
        abi_encode(
            msg.sender,
            self,
            params.terms >> DEPOSIT,
            expiry,
            27 + (signature[1] >> 255),
            signature[0],
            signature[1] & (2**255 - 1),
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._pull(params.payer, params.terms >> DEPOSIT)
    self._begin(params)


@external
@nonreentrant
def deposit_with_authorization(
    params: Params, fee: uint256, valid_after: uint256, valid_before: uint256, signature: uint256[2]
):
    """
    @notice Make the deposit of an escrow by the payer's EIP-3009 authorization of deposit and fee, whose nonce commits
            to the escrow and to both. Anybody may send it, and gets the fee.
    @dev The signature binds it all together: nothing else in this contract redeems authorizations, and the token
         redeems them for no other caller. Its nonce is keccak(id, fee). A token that takes any call for granted (wrapped
         ether does) checks no signature, but then nothing arrives, and a deposit is never nothing.
    @param params The escrow.
    @param fee The sender's, token units.
    @param valid_after The authorization's, in seconds.
    @param valid_before The authorization's, in seconds.
    @param signature The payer's, over ReceiveWithAuthorization(payer, this contract, deposit + fee, ...).
    """
    self._check_fee(fee)
    self._check_params(params)
    total: uint256 = (params.terms >> DEPOSIT) + fee
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    extcall IERC3009(TOKEN).receiveWithAuthorization(
        convert(params.payer, address),
        self,
        total,
        valid_after,
        valid_before,
        keccak256(abi_encode(self._id(params), fee)),
        convert(27 + (signature[1] >> 255), uint8),
        convert(signature[0], bytes32),
        convert(signature[1] & (2**255 - 1), bytes32),
    )
    self._check_arrival(before, total)
    self._begin(params)
    self._credit(self._sender(), fee)


@external
def deposit_signed(params: Params, fee: uint256, expiry: uint256, signature: Bytes[MAX_WALLET_SIGNATURE]):
    """
    @notice Make the deposit of an escrow from the payer's balance as the payer's account signed. Anybody may send it,
            and gets the fee.
    @param params The escrow.
    @param fee The sender's, token units.
    @param expiry Until when the signature is good, in seconds.
    @param signature The payer's over Deposit: 64 bytes (EIP-2098), or what its wallet takes (EIP-1271).
    """
    self._check_fee(fee)
    self._check_params(params)
    content: bytes32 = keccak256(abi_encode(DEPOSIT_TYPE, self._id(params), fee, expiry))
    self._check_account(params.payer, content, expiry, signature)
    self._debit(params.payer, (params.terms >> DEPOSIT) + fee)
    self._begin(params)
    self._credit(self._sender(), fee)


# -- releasing --


@external
def release(params: Params, tariff: Tariff, reading: Reading, signature: uint256[2]):
    """
    @notice File a reading: what is due for it becomes the payee's claim, which is paid once the window is over. What had
            matured before is paid at once. The last reading of a window of 0 ends the escrow.
    @dev A last reading that raises no claim starts no window. It ends the escrow at once where nothing waits.
    @param params The escrow, before its deadline.
    @param tariff The tariff to which the deposit commits.
    @param reading The reading. The payee alone files one that is not the last; it raises the claim.
    @param signature The meter's.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._open(id)
    if word >> FLAGS != EXISTS:
        self._refuse("no more readings")
    if block.timestamp >= self._deadline(params.terms):
        self._refuse("deadline has passed")
    if not reading.last and self._sender() != params.payee:
        self._refuse("not the payee")
    self._check_reading(id, params.meter, reading, signature)
    self._check_tariff(params.tariff, tariff)
    due: uint256 = self._due(params.terms, tariff, reading)
    if due < word & UINT96 or (due == word & UINT96 and not reading.last):
        self._refuse("nothing more to claim")

    if word & UINT96 != (word >> DRAWN) & UINT96:
        word = self._paid(params.payer, params.payee, params.terms, word)
    if due > word & UINT96:
        word = self._packed(due, (word >> DRAWN) & UINT96, block.timestamp, EXISTS)
    if reading.last:
        word |= LAST << FLAGS
    word = self._paid(params.payer, params.payee, params.terms, word)
    self.escrows[id] = word
    log Released(escrow=id, word=word)
    if word & UINT96 != (word >> DRAWN) & UINT96:
        log Filed(escrow=id, reading=reading, signature=signature)


@external
def contest(
    params: Params,
    tariff: Tariff,
    first: Reading,
    first_signature: uint256[2],
    second: Reading,
    second_signature: uint256[2],
):
    """
    @notice Within the window of a claim, show that the meter signed two readings that contradict each other: what waits
            falls to the lesser's due, and no reading is taken any more.
    @dev Anybody may: the proof needs no witness, a payer that deposited by a signature may own no ether, and a watcher
         can act for it. A contest never raises a claim: the payee, who often runs the meter, would use it as a filing.
         Further ones can lower it more within the same window, so that the payee gains nothing by contesting first.
    @param params The escrow.
    @param tariff The tariff to which the deposit commits.
    @param first A reading.
    @param first_signature The meter's.
    @param second Another.
    @param second_signature The meter's.
    """
    id: bytes32 = self._id(params)
    word: uint256 = self._open(id)
    claimed: uint256 = word & UINT96
    drawn: uint256 = (word >> DRAWN) & UINT96
    if claimed == drawn or self._matured(params.terms, word):
        self._refuse("no claim waits")
    self._check_reading(id, params.meter, first, first_signature)
    self._check_reading(id, params.meter, second, second_signature)
    self._check_tariff(params.tariff, tariff)
    lesser: uint256 = min(self._due(params.terms, tariff, first), self._due(params.terms, tariff, second))
    if not self._contradict(first, second):
        self._refuse("no contradiction")
    lesser = max(lesser, drawn)
    flags: uint256 = word >> FLAGS
    if lesser >= claimed and flags & CONTESTED != 0:
        self._refuse("claim is as low already")

    word = self._packed(min(claimed, lesser), drawn, (word >> SINCE) & UINT40, flags | CONTESTED)
    word = self._paid(params.payer, params.payee, params.terms, word)
    self.escrows[id] = word
    log Contested(escrow=id, word=word)


# -- ending --


@external
def end(row: SignedEnd):
    """
    @notice End an escrow at once as both keys signed, whatever waits and whatever the time. Anybody may send it.
    @param row The escrow, what the payee gets in all (no less than it has drawn), and both signatures over End.
    """
    flaw: String[32] = self._end(row, self._id(row.params))
    if len(flaw) != 0:
        self._refuse(flaw)


@external
def end_many(rows: DynArray[SignedEnd, MAX_ROWS]):
    """
    @notice End many escrows as both keys signed. A row that is not good is skipped, with an event that says why.
    @param rows As for `end`.
    """
    for row: SignedEnd in rows:
        id: bytes32 = self._id(row.params)
        flaw: String[32] = self._end(row, id)
        if len(flaw) != 0:
            log Skipped(escrow=id, reason=flaw)


@external
def settle(params: Params):
    """
    @notice Pay the payee what has matured. Where no reading is taken any more and nothing waits, pay the payer the
            rest: the escrow has ended. Anybody may.
    @param params The escrow.
    """
    id: bytes32 = self._id(params)
    before: uint256 = self._open(id)
    word: uint256 = self._paid(params.payer, params.payee, params.terms, before)
    if word == before:
        self._refuse("nothing to pay yet")
    self.escrows[id] = word
    log Settled(escrow=id, word=word)


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
def account(owner: address) -> uint256:
    """
    @notice What an account can withdraw or deposit from.
    @param owner An account.
    @return Its token units in this contract, outside escrows.
    """
    return self.accounts[convert(owner, uint256)]


@external
@view
def escrow(params: Params) -> uint256:
    """
    @notice Where an escrow stands, packed as it is kept.
    @param params An escrow.
    @return Its word; 0 where its deposit was never made.
    """
    return self.escrows[self._id(params)]


@external
@view
def escrow_id(params: Params) -> bytes32:
    """
    @notice What an escrow is known by.
    @param params An escrow.
    @return Its id.
    """
    return self._id(params)


@external
@view
def reading_digest(params: Params, reading: Reading) -> bytes32:
    """
    @notice What the meter signs.
    @param params An escrow.
    @param reading A reading of its meter.
    @return The EIP-712 digest.
    """
    return self._reading_digest(self._id(params), reading)


@external
@view
def end_digest(params: Params, amount: uint256) -> bytes32:
    """
    @notice What both keys sign to end an escrow.
    @param params An escrow.
    @param amount What the payee gets in all.
    @return The EIP-712 digest.
    """
    return self._end_digest(self._id(params), amount)


@external
@view
def due(params: Params, tariff: Tariff, reading: Reading) -> uint256:
    """
    @notice What a reading would release in all; reverts, as `release` does, where reading and tariff do not fit.
    @param params An escrow.
    @param tariff The tariff to which it commits.
    @param reading A reading of its meter.
    @return Token units; never more than the deposit.
    """
    self._check_bounds(reading)
    self._check_tariff(params.tariff, tariff)
    return self._due(params.terms, tariff, reading)


# -- escrows, inside --


@internal
def _begin(params: Params):
    """
    @dev Record an escrow whose parameters have been checked and whose deposit has been taken.
    """
    id: bytes32 = self._id(params)
    if self.escrows[id] != 0:
        self._refuse("escrow was used")
    self.escrows[id] = EXISTS << FLAGS
    log Deposited(
        escrow=id,
        payer=convert(params.payer, address),
        payee=convert(params.payee, address),
        payer_key=convert(params.payer_key, address),
        payee_key=convert(params.payee_key, address),
        meter=convert(params.meter, address),
        tariff=params.tariff,
        terms=params.terms,
    )


@internal
@view
def _check_params(params: Params):
    """
    @dev Pass where an escrow can begin now with these parties, keys and terms.
    """
    if params.payer | params.payee | params.payer_key | params.payee_key | params.meter > UINT160:
        self._refuse("no address")
    if 0 in [params.payer, params.payee, params.payer_key, params.payee_key, params.meter]:
        self._refuse("no address")
    if params.payer == params.payee:
        self._refuse("both parties are the same")
    if params.payer_key == params.payee_key:
        self._refuse("both keys are the same")
    if params.meter == params.payer_key:
        self._refuse("the payer's own meter")
    if params.terms >> DEPOSIT == 0:
        self._refuse("nothing deposited")
    if self._window(params.terms) > MAX_WINDOW:
        self._refuse("window too long")
    if self._deadline(params.terms) <= block.timestamp:
        self._refuse("deadline has passed")
    if self._deadline(params.terms) - block.timestamp > MAX_LIFE:
        self._refuse("deadline too far")


@internal
@view
def _check_payer(params: Params):
    """
    @dev Pass where the caller is the payer of an escrow that can begin now.
    """
    self._check_params(params)
    if self._sender() != params.payer:
        self._refuse("not the payer")


@internal
@pure
def _check_fee(fee: uint256):
    """
    @dev Pass where deposit and fee cannot overflow.
    """
    if fee > UINT96:
        self._refuse("fee too large")


@internal
def _paid(payer: uint256, payee: uint256, terms: uint256, word: uint256) -> uint256:
    """
    @dev Credit the payee with what has matured, and, where it is over and nothing waits, the payer with the rest.
         Returns the escrow's word after it, for the caller to keep.
    """
    claimed: uint256 = word & UINT96
    drawn: uint256 = (word >> DRAWN) & UINT96
    flags: uint256 = word >> FLAGS
    if claimed != drawn and self._matured(terms, word):
        self._credit(payee, claimed - drawn)
        drawn = claimed
    if claimed == drawn and (flags != EXISTS or block.timestamp >= self._deadline(terms)):
        self._credit(payer, (terms >> DEPOSIT) - claimed)
        flags |= ENDED
    return self._packed(claimed, drawn, (word >> SINCE) & UINT40, flags)


@internal
def _end(row: SignedEnd, id: bytes32) -> String[32]:
    """
    @dev End an escrow as both keys signed. Returns what is wrong; then nothing changed.
    """
    word: uint256 = self.escrows[id]
    if word == 0:
        return "no such escrow"
    if word >> FLAGS >= ENDED:
        return "escrow has ended"
    deposit: uint256 = row.params.terms >> DEPOSIT
    drawn: uint256 = (word >> DRAWN) & UINT96
    if row.amount > deposit:
        return "more than the deposit"
    if row.amount < drawn:
        return "less than was drawn"
    digest: bytes32 = self._end_digest(id, row.amount)
    if not self._signed(digest, row.payer_signature[0], row.payer_signature[1], row.params.payer_key):
        return "payer has not signed"
    if not self._signed(digest, row.payee_signature[0], row.payee_signature[1], row.params.payee_key):
        return "payee has not signed"
    self._credit(row.params.payee, row.amount - drawn)
    self._credit(row.params.payer, deposit - row.amount)
    word = self._packed(row.amount, row.amount, (word >> SINCE) & UINT40, (word >> FLAGS) | ENDED)
    self.escrows[id] = word
    log Settled(escrow=id, word=word)
    return ""


@internal
@view
def _open(id: bytes32) -> uint256:
    """
    @dev The word of an escrow that has not ended.
    """
    word: uint256 = self.escrows[id]
    if word == 0:
        self._refuse("no such escrow")
    if word >> FLAGS >= ENDED:
        self._refuse("escrow has ended")
    return word


@internal
@view
def _matured(terms: uint256, word: uint256) -> bool:
    """
    @dev Whether the window of what is claimed is over.
    """
    return block.timestamp >= ((word >> SINCE) & UINT40) + self._window(terms)


@internal
@pure
def _deadline(terms: uint256) -> uint256:
    """
    @dev From when on no reading is taken, in seconds.
    """
    return (terms >> DEADLINE) & UINT64


@internal
@pure
def _window(terms: uint256) -> uint256:
    """
    @dev How long a claim waits, in seconds.
    """
    return (terms >> WINDOW) & UINT32


@internal
@pure
def _packed(claimed: uint256, drawn: uint256, since: uint256, flags: uint256) -> uint256:
    """
    @dev An escrow's word.
    """
    return claimed | (drawn << DRAWN) | (since << SINCE) | (flags << FLAGS)


# -- readings, inside --


@internal
@view
def _check_reading(id: bytes32, meter: uint256, reading: Reading, signature: uint256[2]):
    """
    @dev Pass where the meter has signed this reading of this escrow.
    """
    self._check_bounds(reading)
    if not self._signed(self._reading_digest(id, reading), signature[0], signature[1], meter):
        self._refuse("meter has not signed")


@internal
@pure
def _check_bounds(reading: Reading):
    """
    @dev Pass where a reading's numbers are such as meters count with. Turns are bounded by the total.
    """
    if reading.sequence == 0 or reading.sequence > MAX_QUANTITY:
        self._refuse("reading out of bounds")
    if reading.total > MAX_QUANTITY or reading.at > MAX_INSTANT:
        self._refuse("reading out of bounds")


@internal
@pure
def _check_tariff(committed: bytes32, tariff: Tariff):
    """
    @dev Pass where this is the tariff to which the deposit commits, and something can be computed with it.
    """
    encoded: Bytes[32 * MAX_STEPS + 64] = abi_encode(tariff.steps)
    if keccak256(concat(convert(tariff.per, bytes32), slice(encoded, 64, 32 * len(tariff.steps)))) != committed:
        self._refuse("not the deposit's tariff")
    if tariff.per == 0:
        self._refuse("tariff is void")


@internal
@pure
def _due(terms: uint256, tariff: Tariff, reading: Reading) -> uint256:
    """
    @dev What is due for a reading: the sum over all steps, divided once and rounded down; at most the deposit. Its turns
         must be exactly those of the steps that have begun at its instant.
    """
    turned: uint256 = len(reading.turns)
    if turned >= len(tariff.steps):
        self._refuse("turns do not fit the tariff")
    if turned != 0 and tariff.steps[turned] >> 96 > reading.at:
        self._refuse("turns do not fit the tariff")
    if turned + 1 < len(tariff.steps) and tariff.steps[turned + 1] >> 96 <= reading.at:
        self._refuse("turns do not fit the tariff")
    sum: uint256 = 0
    reached: uint256 = 0
    for step: uint256 in range(turned, bound=MAX_STEPS):
        turn: uint256 = reading.turns[step]
        if turn < reached or turn > reading.total:
            self._refuse("turns out of order")
        sum += (turn - reached) * (tariff.steps[step] & UINT96)
        reached = turn
    sum += (reading.total - reached) * (tariff.steps[turned] & UINT96)
    return min(sum // tariff.per, terms >> DEPOSIT)


@internal
@pure
def _contradict(first: Reading, second: Reading) -> bool:
    """
    @dev Whether no honest meter signs both readings.
    """
    if first.sequence > second.sequence:
        return self._goes_back(second, first)
    if first.sequence < second.sequence:
        return self._goes_back(first, second)
    return keccak256(abi_encode(first)) != keccak256(abi_encode(second))


@internal
@pure
def _goes_back(earlier: Reading, later: Reading) -> bool:
    """
    @dev Whether a reading takes back anything of one with a lower sequence, or follows the last. Also where it says that
         a step took effect at less than what had been read before that step: it would bill that anew.
    """
    if earlier.last or later.total < earlier.total or later.at < earlier.at:
        return True
    if len(later.turns) < len(earlier.turns):
        return True
    for turn: uint256 in range(len(earlier.turns), bound=MAX_STEPS):
        if later.turns[turn] != earlier.turns[turn]:
            return True
    # Turns are in order: `_due` has seen to that.
    return len(later.turns) > len(earlier.turns) and later.turns[len(earlier.turns)] < earlier.total


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
    @dev Pass where exactly `amount` arrived and all that is here fits uint96, so that no balance can ever overflow.
    """
    now: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    if now != before + amount:
        self._refuse("token took a fee")
    if now > UINT96:
        self._refuse("too many tokens")


@internal
def _credit(owner: uint256, amount: uint256):
    """
    @dev Add to a balance.
    """
    if amount != 0:
        self.accounts[owner] += amount


@internal
def _debit(owner: uint256, amount: uint256):
    """
    @dev Take from a balance.
    """
    balance: uint256 = self.accounts[owner]
    if balance < amount:
        self._refuse("balance too low")
    self.accounts[owner] = unsafe_sub(balance, amount)


# -- forms and signatures, inside --


@internal
@view
def _id(params: Params) -> bytes32:
    """
    @dev The escrow's id.
    """
    return keccak256(abi_encode(SEED, params))


@internal
@view
def _sender() -> uint256:
    """
    @dev The caller, as a word.
    """
    return convert(msg.sender, uint256)


@internal
@view
def _reading_digest(id: bytes32, reading: Reading) -> bytes32:
    """
    @dev What the meter signs.
    """
    # As EIP-712 has it of an array: the hash of its elements alone.
    turns: bytes32 = keccak256(b"")
    if len(reading.turns) != 0:
        encoded: Bytes[32 * MAX_STEPS + 64] = abi_encode(reading.turns)
        turns = keccak256(slice(encoded, 64, 32 * len(reading.turns)))
    return self._digest(
        keccak256(
            abi_encode(READING_TYPE, id, reading.sequence, reading.at, reading.total, turns, reading.last)
        )
    )


@internal
@view
def _end_digest(id: bytes32, amount: uint256) -> bytes32:
    """
    @dev What both keys sign to end an escrow.
    """
    return self._digest(keccak256(abi_encode(END_TYPE, id, amount)))


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
def _refuse(reason: String[32]):
    """
    @dev Revert, and say why. One place for all: an `assert` with its reason takes a hundred bytes of code wherever it
         stands.
    """
    raise concat("escrow: ", reason)
