# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Wrapped Ether
@license Apache-2.0
@notice The chain's own ether as an ERC-20 token of 18 decimals: deposit ether, get as many tokens; withdraw them again.
@dev For the devnet, where no such token stands yet.
"""

from ethereum.ercs import IERC20

implements: IERC20

name: public(constant(String[13])) = "Wrapped Ether"
symbol: public(constant(String[4])) = "WETH"
decimals: public(constant(uint8)) = 18

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


event Deposit:
    owner: indexed(address)
    amount: uint256


event Withdrawal:
    owner: indexed(address)
    amount: uint256


@external
@payable
def deposit():
    """
    @notice Turn the ether sent into tokens of the caller.
    """
    self._deposit()


@external
@payable
def __default__():
    """
    @notice Ether sent without a call is a deposit.
    """
    self._deposit()


@external
def withdraw(amount: uint256):
    """
    @notice Turn tokens of the caller back into ether.
    @param amount Wei.
    """
    assert self.balanceOf[msg.sender] >= amount, "token: balance too low"
    self.balanceOf[msg.sender] -= amount
    log Withdrawal(owner=msg.sender, amount=amount)
    # The last act: whoever is called back finds its tokens gone.
    raw_call(msg.sender, b"", value=amount)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice Move tokens of the caller.
    @param receiver Who gets them.
    @param amount Wei.
    @return True.
    """
    self._transfer(msg.sender, receiver, amount)
    return True


@external
def transferFrom(owner: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Move tokens by the caller's allowance. An allowance of 2**256 - 1 never shrinks.
    @param owner Whose they are.
    @param receiver Who gets them.
    @param amount Wei.
    @return True.
    """
    allowed: uint256 = self.allowance[owner][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "token: allowance too low"
        self.allowance[owner][msg.sender] = allowed - amount
    self._transfer(owner, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Let `spender` move tokens of the caller.
    @param spender Who may.
    @param amount Wei, in place of what was allowed before.
    @return True.
    """
    self.allowance[msg.sender][spender] = amount
    log Approval(owner=msg.sender, spender=spender, value=amount)
    return True


@external
@view
def totalSupply() -> uint256:
    """
    @notice How much ether is wrapped.
    @return All tokens, in wei: one for each wei that is kept here.
    """
    return self.balance


@internal
@payable
def _deposit():
    """
    @dev Credit the ether that came with the call.
    """
    self.balanceOf[msg.sender] += msg.value
    log Deposit(owner=msg.sender, amount=msg.value)


@internal
def _transfer(sender: address, receiver: address, amount: uint256):
    """
    @dev Move tokens between two accounts. Tokens sent to nobody or to this contract would be lost.
    """
    assert receiver != empty(address) and receiver != self, "token: no such receiver"
    assert self.balanceOf[sender] >= amount, "token: balance too low"
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=sender, receiver=receiver, value=amount)
