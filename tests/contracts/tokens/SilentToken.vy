# pragma version 0.4.3
"""
@title A token whose transfers return nothing, as some of the oldest do.
"""

balanceOf: public(HashMap[address, uint256])


@external
def mint(holders: DynArray[address, 16], amount: uint256):
    for holder: address in holders:
        self.balanceOf[holder] += amount


@external
def transfer(receiver: address, amount: uint256):
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[receiver] += amount


@external
def transferFrom(owner: address, receiver: address, amount: uint256):
    self.balanceOf[owner] -= amount
    self.balanceOf[receiver] += amount
