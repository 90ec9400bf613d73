# How a pot is shared out.


@external
def check_a_balance_is_within_the_pot(credit: uint256, debit: uint256, pot: uint256):
    found: uint256 = self._balance(credit, debit, pot)
    self._must(found <= pot)
    self._must(found == (0 if credit <= debit else min(unsafe_sub(credit, debit), pot)))


@external
def check_what_was_drawn_stays_counted(total: uint256, drawn_opener: uint96, drawn_partner: uint96, pot: uint96):
    if convert(drawn_opener, uint256) + convert(drawn_partner, uint256) > convert(pot, uint256):
        return
    drawn: uint256 = convert(drawn_opener, uint256) | (convert(drawn_partner, uint256) << 96)
    found: uint256 = self._within(total, drawn, convert(pot, uint256))
    self._must(found >= convert(drawn_opener, uint256))
    self._must(found <= unsafe_sub(convert(pot, uint256), convert(drawn_partner, uint256)))
    # As near to what was asked for as that leaves it.
    self._must(found == total or (found > total) == (found == convert(drawn_opener, uint256)) or found == unsafe_sub(convert(pot, uint256), convert(drawn_partner, uint256)))


@external
def check_an_open_lock_never_pays_twice(
    credit: uint128, debit: uint128, live_opener: uint96, live_partner: uint96, drawn: uint96[2], pot: uint96
):
    """
    @dev Locks held against a side leave it no more than locks held for it: `least` is never above `most` in `settle`.
    """
    whole: uint256 = convert(pot, uint256)
    both: uint256 = convert(drawn[0], uint256) | (convert(drawn[1], uint256) << 96)
    if convert(drawn[0], uint256) + convert(drawn[1], uint256) > whole:
        return
    worst: uint256 = self._balance(
        convert(credit, uint256), unsafe_add(convert(debit, uint256), convert(live_partner, uint256)), whole
    )
    best: uint256 = self._balance(
        unsafe_add(convert(credit, uint256), convert(live_opener, uint256)), convert(debit, uint256), whole
    )
    self._must(worst <= best)
    self._must(self._within(worst, both, whole) <= self._within(best, both, whole))


@external
def check_the_worst_case_grows_with_what_is_asked(low: uint256, high: uint256, drawn: uint96[2], pot: uint96):
    """
    @dev `_within` keeps the order of its totals.
    """
    if low > high or convert(drawn[0], uint256) + convert(drawn[1], uint256) > convert(pot, uint256):
        return
    both: uint256 = convert(drawn[0], uint256) | (convert(drawn[1], uint256) << 96)
    self._must(self._within(low, both, convert(pot, uint256)) <= self._within(high, both, convert(pot, uint256)))


@external
def check_a_payout_borrows_from_neither_side(totals: uint96[2], drawn: uint96[2]):
    """
    @dev Totals less what was drawn, packed as everywhere: each part is its own difference.
    """
    if drawn[0] > totals[0] or drawn[1] > totals[1]:
        return
    packed: uint256 = (convert(totals[0], uint256) & UINT96) | ((convert(totals[1], uint256) & UINT96) << 96)
    amounts: uint256 = unsafe_sub(
        packed, (convert(drawn[0], uint256) & UINT96) | ((convert(drawn[1], uint256) & UINT96) << 96)
    )
    self._must(amounts & UINT96 == unsafe_sub(convert(totals[0], uint256), convert(drawn[0], uint256)))
    self._must(amounts >> 96 == unsafe_sub(convert(totals[1], uint256), convert(drawn[1], uint256)))
