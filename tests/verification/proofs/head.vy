# What every contract of checks begins with; comes after the functions of Channel.vy, all of them internal.

# The token, which is the contract of checks itself, does as it likes: what it shows and answers is up to the solver.
shown: uint256  # its balance of this contract
moved: uint256  # the balance that it shows after a transfer
answer_of_token: bool


@deploy
def __init__():
    TOKEN = self
    SEPARATOR = keccak256("separator")
    SEED = keccak256("seed")


@external
@view
def balanceOf(owner: address) -> uint256:
    return self.shown


@external
def transferFrom(owner: address, to: address, amount: uint256) -> bool:
    self.shown = self.moved
    return self.answer_of_token


@external
def transfer(to: address, amount: uint256) -> bool:
    self.shown = self.moved
    return self.answer_of_token


@internal
@pure
def _must(holds: bool):
    """
    @dev What halmos takes for a failed assertion: Panic(1). A plain revert ends a path without a failure.
    """
    if not holds:
        raw_revert(concat(method_id("Panic(uint256)"), convert(1, bytes32)))


@internal
def _at(time: uint256):
    """
    @dev Let it be `time` now: halmos' own `warp(uint256)`.
    """
    raw_call(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D, concat(0xe5d6bf02, convert(time, bytes32)))
