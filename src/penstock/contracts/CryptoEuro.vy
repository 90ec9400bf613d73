# pragma version 0.4.3
# SPDX-License-Identifier: Apache-2.0
"""
@title Crypto Euro
@license Apache-2.0
@notice A euro token of 6 decimals, with permits (EIP-2612) and transfers by authorization (EIP-3009).
@dev For the devnet only: whoever deployed it mints at will, and nothing backs it.
"""

from ethereum.ercs import IERC20

implements: IERC20

HALF_ORDER: constant(uint256) = (  # of secp256k1
    115792089237316195423570985008687907852837564279074904382605163141518161494337 // 2
)
MAX_HOLDERS: constant(uint256) = 512

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
PERMIT_TYPE: constant(bytes32) = keccak256(
    "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
)
TRANSFER_TYPE: constant(bytes32) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_TYPE: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
CANCEL_TYPE: constant(bytes32) = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")

name: public(constant(String[11])) = "Crypto Euro"
symbol: public(constant(String[4])) = "cEUR"
version: public(constant(String[1])) = "1"
decimals: public(constant(uint8)) = 6

MINTER: immutable(address)
SEPARATOR: immutable(bytes32)

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])  # of permits
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])  # true: used or cancelled


event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)


@deploy
def __init__():
    """
    @notice Make whoever deploys this the minter.
    """
    MINTER = msg.sender
    SEPARATOR = keccak256(abi_encode(DOMAIN_TYPE, keccak256("Crypto Euro"), keccak256("1"), chain.id, self))


@external
def mint(holders: DynArray[address, MAX_HOLDERS], amount: uint256):
    """
    @notice Make new tokens for each of many holders. For the devnet: only who deployed the token may.
    @param holders Who gets them.
    @param amount Token units for each.
    """
    assert msg.sender == MINTER, "token: not the minter"
    for holder: address in holders:
        assert holder != empty(address), "token: no such receiver"
        self.balanceOf[holder] += amount
        log Transfer(sender=empty(address), receiver=holder, value=amount)
    self.totalSupply += amount * len(holders)


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice Move tokens of the caller.
    @param receiver Who gets them.
    @param amount Token units.
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
    @param amount Token units.
    @return True.
    """
    allowed: uint256 = self.allowance[owner][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "token: allowance too low"
        self.allowance[owner][msg.sender] = unsafe_sub(allowed, amount)
    self._transfer(owner, receiver, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Let `spender` move tokens of the caller.
    @param spender Who may.
    @param amount Token units, in place of what was allowed before.
    @return True.
    """
    self._approve(msg.sender, spender, amount)
    return True


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Set an allowance by its owner's signature (EIP-2612). Anybody may send it.
    @param owner Whose tokens they are, and who signed.
    @param spender Who may move them.
    @param amount Token units.
    @param deadline Until when the permit is good, in seconds.
    @param v Of the signature.
    @param r Of the signature.
    @param s Of the signature.
    """
    assert block.timestamp <= deadline, "token: permit expired"
    nonce: uint256 = self.nonces[owner]
    struct_hash: bytes32 = keccak256(abi_encode(PERMIT_TYPE, owner, spender, amount, nonce, deadline))
    self._check_signed(struct_hash, v, r, s, owner)
    self.nonces[owner] = nonce + 1
    self._approve(owner, spender, amount)


@external
def transferWithAuthorization(
    owner: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice Move tokens by their owner's signature (EIP-3009). Anybody may send it.
    @param owner Whose tokens they are, and who signed.
    @param receiver Who gets them.
    @param amount Token units.
    @param valid_after In seconds; good after, not at.
    @param valid_before In seconds; good before, not at.
    @param nonce Any 32 bytes that the owner has not used.
    @param v Of the signature.
    @param r Of the signature.
    @param s Of the signature.
    """
    struct_hash: bytes32 = keccak256(
        abi_encode(TRANSFER_TYPE, owner, receiver, amount, valid_after, valid_before, nonce)
    )
    self._use(owner, valid_after, valid_before, nonce, struct_hash, v, r, s)
    self._transfer(owner, receiver, amount)


@external
def receiveWithAuthorization(
    owner: address,
    receiver: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @notice As `transferWithAuthorization`, but only the receiver may send it (EIP-3009).
    @param owner Whose tokens they are, and who signed.
    @param receiver Who gets them: the caller.
    @param amount Token units.
    @param valid_after In seconds; good after, not at.
    @param valid_before In seconds; good before, not at.
    @param nonce Any 32 bytes that the owner has not used.
    @param v Of the signature.
    @param r Of the signature.
    @param s Of the signature.
    """
    assert msg.sender == receiver, "token: caller is not the receiver"
    struct_hash: bytes32 = keccak256(
        abi_encode(RECEIVE_TYPE, owner, receiver, amount, valid_after, valid_before, nonce)
    )
    self._use(owner, valid_after, valid_before, nonce, struct_hash, v, r, s)
    self._transfer(owner, receiver, amount)


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Make an authorization useless by its signer's signature (EIP-3009). Anybody may send it.
    @param authorizer Who signed.
    @param nonce The authorization's.
    @param v Of the signature.
    @param r Of the signature.
    @param s Of the signature.
    """
    assert not self.authorizationState[authorizer][nonce], "token: authorization used"
    self._check_signed(keccak256(abi_encode(CANCEL_TYPE, authorizer, nonce)), v, r, s, authorizer)
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice What binds every signature to this chain and token (EIP-712).
    @return The EIP-712 domain separator.
    """
    return SEPARATOR


@internal
def _use(
    owner: address,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    struct_hash: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    """
    @dev Check an authorization and mark it used.
    """
    assert block.timestamp > valid_after, "token: authorization not yet valid"
    assert block.timestamp < valid_before, "token: authorization expired"
    assert not self.authorizationState[owner][nonce], "token: authorization used"
    self._check_signed(struct_hash, v, r, s, owner)
    self.authorizationState[owner][nonce] = True
    log AuthorizationUsed(authorizer=owner, nonce=nonce)


@internal
@view
def _check_signed(struct_hash: bytes32, v: uint8, r: bytes32, s: bytes32, signer: address):
    """
    @dev Pass where `signer` made the signature, in its one canonical form, under this token's domain.
    """
    digest: bytes32 = keccak256(concat(b"\x19\x01", SEPARATOR, struct_hash))
    good: bool = (v == 27 or v == 28) and convert(s, uint256) <= HALF_ORDER and signer != empty(address)
    assert good and ecrecover(digest, v, r, s) == signer, "token: bad signature"


@internal
def _approve(owner: address, spender: address, amount: uint256):
    """
    @dev Set an allowance.
    """
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, value=amount)


@internal
def _transfer(sender: address, receiver: address, amount: uint256):
    """
    @dev Move tokens between two accounts. Tokens sent to nobody or to this contract would be lost.
    """
    assert receiver != empty(address) and receiver != self, "token: no such receiver"
    owned: uint256 = self.balanceOf[sender]
    assert owned >= amount, "token: balance too low"
    self.balanceOf[sender] = unsafe_sub(owned, amount)
    self.balanceOf[receiver] += amount
    log Transfer(sender=sender, receiver=receiver, value=amount)
