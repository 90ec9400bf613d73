# Conservation over whole functions: what the two accounts gain is what the channel loses.
#
# A state is any words whatever in which the channel holds no less than was drawn from it, and all sums together fit the
# bound that every deposit keeps. Each function starts from such a state with any arguments, at any time, sent by either
# party; it must leave the sum as it was, and a state of that kind. Fixed are: the parties (one of them is the sender),
# the counter (with and without `apart`) and the period. The direction is either.
#
# Conditions are added up in one number instead of `and`, so that halmos has one path where there would be ten.

OTHER: constant(uint256) = 4_097  # an account
MOST: constant(uint256) = max_value(Sum)

before: uint256  # the word that `_put` put there


struct State:
    deposits: Sum[2]  # as in the channel's word: the second is the partner's claim or filing in a one-way channel
    paid: Sum[2]
    filings: Sum[2]
    locked: Sum[2]
    locked_until: uint40[2]
    nonces: uint88[2]  # with the serial
    balances: Sum[2]  # the opener's and the partner's
    counters: uint64[2]
    closes_at: uint40
    flags: uint24  # without the next three
    exists: bool
    drawn_before: bool
    part_settled: bool
    closing: bool
    now: uint40
    two_way: bool
    apart: bool
    sent_by_partner: bool


@internal
@pure
def _pair(parts: Sum[2]) -> uint256:
    # The masks change nothing; they show the solver which bits are zero.
    return (convert(parts[0], uint256) & MOST) | ((convert(parts[1], uint256) & MOST) << 96)


@internal
@pure
def _word(state: State) -> uint256:
    """
    @dev The channel's word. What most decides is branched on, and so known on each path.
    """
    word: uint256 = self._pair(state.deposits) | ((convert(state.flags, uint256) & (UINT24 - 7)) << 232)
    if state.exists:
        word |= 1 << 232
    if state.drawn_before:
        word |= 1 << 233
    if state.part_settled:
        word |= 1 << 234
    if state.closing:
        word |= (convert(state.closes_at, uint256) & UINT40) << 192
    return word


@internal
@pure
def _account(state: State, partner: bool) -> uint256:
    at: uint256 = convert(partner, uint256)
    return ((convert(state.balances[at], uint256) & MOST) << 64) | (convert(state.counters[at], uint256) & UINT64)


@internal
@pure
def _held(state: State, partner: bool) -> uint256:
    at: uint256 = convert(partner, uint256)
    return (
        (convert(state.locked[at], uint256) & MOST)
        | ((convert(state.locked_until[at], uint256) & UINT40) << 96)
        | (convert(state.nonces[at], uint256) << 136)
    )


@internal
@view
def _params(state: State) -> Params:
    terms: uint256 = (3_600 << PERIOD_SHIFT) | 7
    if state.two_way:
        terms |= TWO_WAY
    if state.apart:
        terms |= APART
    opener: uint256 = convert(msg.sender, uint256)
    partner: uint256 = OTHER
    if state.sent_by_partner:
        opener = OTHER
        partner = convert(msg.sender, uint256)
    return Params(opener=opener, partner=partner, opener_key=0, partner_key=0, terms=terms)


@internal
@pure
def _bit(word: uint256, place: uint256) -> uint256:
    """
    @dev All ones where a bit is set, else zero.
    """
    return unsafe_sub(0, (word >> place) & 1)


@internal
@pure
def _sums(word: uint256, paid: uint256, two_way: bool) -> (uint256, uint256):
    """
    @dev What was put into a channel, and what was drawn from it. Read here from the bits by themselves, not by the
         contract's functions.
    """
    upper: uint256 = (word >> 96) & UINT96
    pot: uint256 = word & UINT96
    drawn: uint256 = unsafe_add(paid & UINT96, paid >> 96) & self._bit(word, 233)
    if two_way:
        pot = unsafe_add(pot, upper)
    else:
        # Claims stand there while the channel is open.
        drawn = unsafe_add(drawn, upper & unsafe_sub(0, convert((word >> 192) & UINT40 == 0, uint256)))
    exists: uint256 = self._bit(word, 232)
    return pot & exists, drawn & exists


@internal
@pure
def _sound(word: uint256, paid: uint256, two_way: bool) -> uint256:
    """
    @dev 1 where a channel's words can be: no more drawn than put in, and what the partner of a one-way channel claims
         stands in the channel's word while it is open, not in `paid`.
    """
    pot: uint256 = 0
    drawn: uint256 = 0
    pot, drawn = self._sums(word, paid, two_way)
    good: uint256 = convert(pot >= drawn, uint256)
    if not two_way:
        good &= convert(paid >> 96 & self._bit(word, 233) == 0, uint256) | convert(
            (word >> 192) & UINT40 != 0, uint256
        )
    return good


@internal
def _put(params: Params, state: State) -> bytes32:
    """
    @dev Let this be so. A path with any other kind of state ends here.
    """
    word: uint256 = self._word(state)
    paid: uint256 = self._pair(state.paid)
    pot: uint256 = 0
    drawn: uint256 = 0
    pot, drawn = self._sums(word, paid, state.two_way)
    balances: uint256 = unsafe_add(convert(state.balances[0], uint256) & MOST, convert(state.balances[1], uint256) & MOST)
    if (
        convert(unsafe_sub(convert(state.now, uint256), 1) < 2**39, uint256)
        & self._sound(word, paid, state.two_way)
        & convert(unsafe_add(pot, balances) <= UINT96, uint256)
    ) == 0:
        raise "no such state"
    self._at(convert(state.now, uint256))
    id: bytes32 = self._id(params)
    self.before = word
    self.channels[id] = word
    # A slot whose flag is not set is empty.
    self.paid[id] = paid & self._bit(word, 233)
    self.filings[id] = self._pair(state.filings)
    self.held[id][False] = self._held(state, False)
    self.held[id][True] = self._held(state, True)
    self.accounts[params.opener] = self._account(state, False)
    self.accounts[params.partner] = self._account(state, True)
    return id


@internal
@view
def _conserved(id: bytes32, params: Params, state: State, counter: uint256, extra: uint256):
    """
    @dev The two accounts and the channel together have what they had, nothing is below zero, the opener's counter is
         now `counter`. `extra` is 1 where whatever else must hold does.
    """
    pot: uint256 = 0
    drawn: uint256 = 0
    pot, drawn = self._sums(self.before, self._pair(state.paid), state.two_way)
    pot_now: uint256 = 0
    drawn_now: uint256 = 0
    pot_now, drawn_now = self._sums(self.channels[id], self.paid[id], state.two_way)
    opener: uint256 = self.accounts[params.opener]
    partner: uint256 = self.accounts[params.partner]
    now: uint256 = unsafe_add(unsafe_add(opener >> 64, partner >> 64), unsafe_sub(pot_now, drawn_now))
    before: uint256 = unsafe_add(
        unsafe_add(convert(state.balances[0], uint256) & MOST, convert(state.balances[1], uint256) & MOST), unsafe_sub(pot, drawn)
    )
    self._must(
        (
            extra
            & convert(now == before, uint256)
            & self._sound(self.channels[id], self.paid[id], state.two_way)
            & convert(opener >> 160 == 0, uint256)
            & convert(partner >> 160 == 0, uint256)
            & convert(opener & UINT64 == counter, uint256)
            & convert(partner & UINT64 == convert(state.counters[1], uint256), uint256)
        ) == 1
    )


@internal
@view
def _unchanged(id: bytes32, params: Params, state: State):
    """
    @dev Nothing that counts has changed.
    """
    self._must(
        (
            (self.channels[id] ^ self.before)
            | (self.accounts[params.opener] ^ self._account(state, False))
            | (self.accounts[params.partner] ^ self._account(state, True))
        ) == 0
    )


@internal
@view
def _kept(params: Params, state: State) -> uint256:
    """
    @dev 1 where no account has changed.
    """
    return convert(
        (self.accounts[params.opener] ^ self._account(state, False)) | (self.accounts[params.partner] ^ self._account(state, True)) == 0,
        uint256,
    )


@internal
@view
def _ended(id: bytes32) -> uint256:
    """
    @dev 1 where there is no channel, or its tombstone.
    """
    return convert(self.channels[id] >> 1 == 0, uint256)


@external
def settle_now(params: Params):
    self.settle(params)


@external
def check_settling_is_never_stuck(state: State):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    closes_at: uint256 = convert(state.closes_at, uint256)
    if (
        convert(state.exists and state.closing, uint256)
        & convert(closes_at != 0, uint256)
        & convert(convert(state.now, uint256) >= closes_at, uint256)
    ) == 0:
        return
    self._must(
        raw_call(
            self,
            abi_encode(params, method_id=method_id("settle_now((uint256,uint256,uint256,uint256,uint256))")),
            revert_on_failure=False,
        )
    )


@external
def check_settling_conserves(state: State):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.settle(params)
    # Nobody loses; and a channel without locks ends.
    extra: uint256 = convert(self.accounts[params.opener] >= self._account(state, False), uint256)
    extra &= convert(self.accounts[params.partner] >= self._account(state, True), uint256)
    extra &= self._ended(id) | convert((convert(state.flags, uint256) >> 8) & 3 != 0, uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_closing_together_conserves(state: State, shares: Sum[2], expiry: uint64, a: uint256[2], b: uint256[2]):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    flaw: String[32] = self._close_together(
        Consent(params=params, split=self._pair(shares) | ((convert(expiry, uint256) & UINT64) << 192), opener_signature=a, partner_signature=b)
    )
    if len(flaw) != 0:
        self._unchanged(id, params, state)
    else:
        self._conserved(id, params, state, convert(state.counters[0], uint256), self._ended(id))


@external
def check_withdrawing_together_conserves(state: State, shares: Sum[2], expiry: uint64, a: uint256[2], b: uint256[2]):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.withdraw_together(Consent(params=params, split=self._pair(shares) | ((convert(expiry, uint256) & UINT64) << 192), opener_signature=a, partner_signature=b))
    self._conserved(id, params, state, convert(state.counters[0], uint256), 1)


@external
def check_a_claim_conserves(state: State, voucher: Voucher, signature: uint256[2]):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    flaw: String[32] = self._claim(id, params, voucher, signature)
    if len(flaw) != 0:
        self._unchanged(id, params, state)
    else:
        extra: uint256 = convert(not state.two_way, uint256)
        extra &= convert(self.accounts[params.opener] == self._account(state, False), uint256)
        self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_a_row_of_claims_conserves(state: State, total: Sum, nonce: uint128, signature: uint256[2]):
    if state.apart or not state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    row: uint256[4] = [
        params.opener | ((convert(total, uint256) & MOST) << 160),
        params.terms | (convert(nonce, uint256) << 128),
        signature[0],
        signature[1],
    ]
    self.claim_many(0, [row])
    extra: uint256 = convert(self.accounts[params.opener] == self._account(state, False), uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_a_row_of_closes_conserves(state: State, total: Sum, expiry: uint128, signature: uint256[2]):
    if state.apart or not state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    row: uint256[4] = [
        params.opener | ((convert(total, uint256) & MOST) << 160),
        params.terms | (convert(expiry, uint256) << 128),
        signature[0],
        signature[1],
    ]
    self.close_mine(0, [row])
    extra: uint256 = self._ended(id) | convert(self.channels[id] == self.before, uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_adding_conserves(state: State, amount: Sum):
    if state.apart:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    more: uint256 = convert(amount, uint256) & MOST
    self.add(params, convert(more, uint96))
    # One's own account is what pays, and one's own side is what grows.
    mine: uint256 = self._account(state, False)
    grown: uint256 = unsafe_add(self.before, more)
    if state.sent_by_partner:
        mine = self._account(state, True)
        grown = unsafe_add(self.before, more << 96)
    extra: uint256 = convert(self.accounts[convert(msg.sender, uint256)] == unsafe_sub(mine, more << 64), uint256)
    extra &= convert(self.channels[id] == grown, uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_opening_conserves(state: State, deposit: Sum):
    params: Params = self._params(state)
    # A counter that is free has a free slot.
    if state.sent_by_partner or self._word(state) != 0:
        return
    id: bytes32 = self._put(params, state)
    self.open(params.partner | ((convert(deposit, uint256) & MOST) << 160), params.terms)
    self._conserved(id, params, state, 8, convert(convert(state.counters[0], uint256) <= 7, uint256))


@external
def check_opening_with_keys_conserves(state: State, deposit: Sum):
    params: Params = self._params(state)
    # What is in the slot of a counter apart is up to the solver, a tombstone included.
    if state.sent_by_partner or not state.apart and self._word(state) != 0:
        return
    id: bytes32 = self._put(params, state)
    self.open_with_keys(params.partner | ((convert(deposit, uint256) & MOST) << 160), params.terms, 0, 0)
    counter: uint256 = convert(state.counters[0], uint256)
    self._conserved(
        id, params, state, counter if state.apart else 8, convert(self.before == 0, uint256)
    )


@external
def check_beginning_to_close_conserves(state: State):
    if state.apart:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.close(params)
    extra: uint256 = self._kept(params, state)
    extra &= convert((self.channels[id] >> 192) & UINT40 == convert(state.now, uint256) + 3_600, uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_filing_conserves(state: State, voucher: Voucher, signature: uint256[2], begin: bool):
    if state.apart or not state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.file(params, voucher, signature, [], begin)
    self._conserved(id, params, state, convert(state.counters[0], uint256), self._kept(params, state))


@external
def check_a_release_conserves(
    state: State, partner: bool, lowest: uint64, nonce: uint256, amount: uint256, a: uint256[2], b: uint256[2]
):
    if state.apart or state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.floors[id][partner] = convert(lowest, uint256)
    self.release(params, partner, nonce, amount, a, b)
    extra: uint256 = self._kept(params, state)
    extra &= convert(nonce > convert(lowest, uint256), uint256) & convert(self.floors[id][partner] == nonce, uint256)
    self._conserved(id, params, state, convert(state.counters[0], uint256), extra)


@external
def check_finishing_conserves(state: State, voucher: Voucher, signature: uint256[2]):
    if state.apart or not state.sent_by_partner:
        return
    params: Params = self._params(state)
    id: bytes32 = self._put(params, state)
    self.finish(params, voucher, signature, [])
    self._conserved(id, params, state, convert(state.counters[0], uint256), self._ended(id))


@external
def check_a_deposit_is_what_arrived(amount: uint96, account: uint256, shown: uint256, moved: uint256, answers: bool):
    # All that is credited is here: that is the invariant which `_check_arrival` keeps.
    if account >> 64 > shown or shown > UINT96:
        return
    self.shown = shown
    self.moved = moved
    self.answer_of_token = answers
    self.accounts[convert(msg.sender, uint256)] = account
    self.deposit(amount)
    after: uint256 = self.accounts[convert(msg.sender, uint256)]
    self._must(answers and moved <= UINT96)
    self._must(moved == unsafe_add(shown, convert(amount, uint256)))
    self._must(after & UINT64 == account & UINT64)
    self._must(unsafe_sub(after >> 64, account >> 64) == unsafe_sub(moved, shown))


@external
def check_a_withdrawal_is_taken_from_the_account(amount: uint96, account: uint256, answers: bool):
    self.answer_of_token = answers
    self.accounts[convert(msg.sender, uint256)] = account
    self.withdraw(amount)
    after: uint256 = self.accounts[convert(msg.sender, uint256)]
    self._must(answers and account >> 64 >= convert(amount, uint256))
    self._must(after == unsafe_sub(account, convert(amount, uint256) << 64))
