# What is packed into one word comes out of it again.


@external
def check_a_flag_is_one_bit(word: uint256, bit: uint8, partner: bool):
    if bit < 232 or bit > 246:
        return
    marked: uint256 = self._mark(word, convert(bit, uint256), partner)
    place: uint256 = 1 << (convert(bit, uint256) + convert(partner, uint256))
    self._must(self._has(marked, convert(bit, uint256), partner))
    self._must(marked == word or (marked ^ word == place and not self._has(word, convert(bit, uint256), partner)))


@external
def check_a_deadline_touches_nothing_else(word: uint256, terms: uint256, now: uint64):
    if terms >> PERIOD_SHIFT < MIN_PERIOD or terms >> PERIOD_SHIFT > MAX_PERIOD or now >= 2**39:
        return
    self._at(convert(now, uint256))
    after: uint256 = self._reschedule(word, terms)
    self._must(self._closes_at(after) == convert(now, uint256) + (terms >> PERIOD_SHIFT))
    self._must(after & ~(UINT40 << CLOSES_AT) == word & ~(UINT40 << CLOSES_AT))


@external
def check_a_filing_is_read_as_it_was_written(id: bytes32, word: uint256, terms: uint256, partner: bool, amount: uint256, other: uint96):
    # Nobody can be paid against the direction of a one-way channel.
    if terms & TWO_WAY == 0 and not partner:
        return
    self.filings[id] = convert(other, uint256) << 96 | convert(other, uint256)
    after: uint256 = self._mark(self._write(id, word, terms, partner, amount), FILED, partner)
    self._must(self._filed(id, after, terms, partner) == min(amount, UINT96))
    if terms & TWO_WAY == 0:
        self._must(after & ~(UINT96 << 96) == self._mark(word, FILED, partner) & ~(UINT96 << 96))
    else:
        self._must(after == self._mark(word, FILED, partner))
        self._must(self._filed(id, self._mark(after, FILED, not partner), terms, not partner) == convert(other, uint256))


@external
def check_a_credit_leaves_the_counter(owner: uint256, balance: uint96, counter: uint64, amount: uint96):
    self.accounts[owner] = convert(balance, uint256) << 64 | convert(counter, uint256)
    self._credit(owner, convert(amount, uint256))
    after: uint256 = self.accounts[owner]
    self._must(after & UINT64 == convert(counter, uint256))
    self._must(after >> 64 == unsafe_add(convert(balance, uint256), convert(amount, uint256)))


@external
def check_a_debit_leaves_the_counter(owner: uint256, balance: uint96, counter: uint64, amount: uint256):
    self.accounts[owner] = convert(balance, uint256) << 64 | convert(counter, uint256)
    self._debit(owner, amount)
    after: uint256 = self.accounts[owner]
    self._must(amount <= convert(balance, uint256))
    self._must(after & UINT64 == convert(counter, uint256))
    self._must(after >> 64 == unsafe_sub(convert(balance, uint256), amount))


@external
def check_a_proof_is_read_field_by_field(
    index: uint16, ticks: uint16, count: uint16, expiry: uint64, tick_value: uint96, root: bytes32, preimage: bytes32
):
    head: uint256 = convert(index, uint256) | convert(ticks, uint256) << 16 | convert(count, uint256) << 32
    head |= convert(expiry, uint256) << 56 | convert(tick_value, uint256) << 120
    proof: Proof = self._read([convert(head, bytes32), root, preimage], 0)
    self._must(proof.index == convert(index, uint256) and proof.ticks == convert(ticks, uint256))
    self._must(proof.count == convert(count, uint256) and proof.expiry == convert(expiry, uint256))
    self._must(proof.tick_value == convert(tick_value, uint256) and proof.root == root and proof.preimage == preimage)
    self._must(proof.next == 3)
    leaf: bytes32 = keccak256(
        concat(b"\x00", abi_encode(proof.index, proof.root, proof.tick_value, proof.ticks, proof.expiry))
    )
    # A tree of one lock has index 0 only.
    self._must(proof.tree == (leaf if index == 0 else empty(bytes32)))


@external
def check_a_sibling_stands_on_its_side(head: uint256, root: bytes32, preimage: bytes32, sibling: bytes32):
    proof: Proof = self._read([convert(head & ~(255 << 48) | (1 << 48), bytes32), root, preimage, sibling], 0)
    leaf: bytes32 = keccak256(
        concat(b"\x00", abi_encode(proof.index, proof.root, proof.tick_value, proof.ticks, proof.expiry))
    )
    if proof.index == 0:
        self._must(proof.tree == keccak256(concat(b"\x01", leaf, sibling)))
    elif proof.index == 1:
        self._must(proof.tree == keccak256(concat(b"\x01", sibling, leaf)))
    else:
        self._must(proof.tree == empty(bytes32))
    self._must(proof.next == 4)


@external
def check_a_signature_has_one_form(digest: bytes32, r: uint256, vs: uint256, signer: address):
    s: uint256 = vs & (2**255 - 1)
    v: uint256 = 28 if vs >> 255 == 1 else 27
    found: address = ecrecover(digest, v, r, s)
    good: bool = self._signed(digest, r, vs, convert(signer, uint256))
    self._must(good == (found == signer and signer != empty(address) and s <= HALF_ORDER))
    # Nothing is lost in the split, so that no other word means the same.
    self._must(s | ((v - 27) << 255) == vs)


@external
def check_locks_are_kept_field_by_field(
    id: bytes32, word: uint256, terms: uint256, partner: bool, voucher: Voucher, before: uint256, now: uint64
):
    # What `_check_voucher` lets pass, in a challenge.
    if voucher.locked > UINT96 or voucher.nonce > UINT64 or now >= 2**39:
        return
    if voucher.locked_until > convert(now, uint256) + MAX_PERIOD:
        return
    self._at(convert(now, uint256))
    self.held[id][partner] = before
    self._hold(id, terms, word, partner, voucher)
    kept: uint256 = self.held[id][partner]
    self._must(kept & UINT96 == voucher.locked and (kept >> 96) & UINT40 == voucher.locked_until)
    self._must(kept >> 160 == voucher.nonce)
    self._must((kept >> 136) & UINT24 == unsafe_add((before >> 136) & UINT24, 1) & UINT24)


@external
def check_an_event_tells_each_field(word: uint256, partner: bool, amount: uint96, nonce: uint64):
    told: uint256 = self._told(word, partner, convert(amount, uint256), convert(nonce, uint256))
    self._must(told & UINT96 == convert(amount, uint256) and (told >> 96) & UINT64 == convert(nonce, uint256))
    self._must((told >> 160) & 1 == convert(partner, uint256) and told >> 161 == self._closes_at(word))
