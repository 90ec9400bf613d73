# pragma version 0.4.3
"""
@title A token that misbehaves as it is told: returns false, takes a fee, or calls back during a transfer.
"""

HONEST: constant(uint256) = 0
RETURNS_FALSE: constant(uint256) = 1
TAKES_A_FEE: constant(uint256) = 2
CALLS_BACK: constant(uint256) = 3

balanceOf: public(HashMap[address, uint256])
manner: public(uint256)
target: address
payload: Bytes[2048]
allowed: public(bool)  # whether the call back succeeded


@external
def mint(holders: DynArray[address, 16], amount: uint256):
    for holder: address in holders:
        self.balanceOf[holder] += amount


@external
def burn(holder: address):
    self.balanceOf[holder] = 0


@external
def behave(manner: uint256, target: address, payload: Bytes[2048]):
    self.manner = manner
    self.target = target
    self.payload = payload


@external
def enter(target: address, payload: Bytes[2048]):
    """
    @notice Make a call in the token's own name.
    """
    raw_call(target, payload)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    return self._move(msg.sender, receiver, amount)


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    return self._move(owner, receiver, amount)


@internal
def _move(owner: address, receiver: address, amount: uint256) -> bool:
    if self.manner == RETURNS_FALSE:
        return False
    if self.manner == CALLS_BACK:
        self.manner = HONEST
        self.allowed = raw_call(self.target, self.payload, revert_on_failure=False)
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount - (1 if self.manner == TAKES_A_FEE else 0)
    return True
