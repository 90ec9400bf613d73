# pragma version 0.4.3
"""
@title A wallet that one key owns and whose signatures are EIP-1271; it can change its mind.
"""

OWNER: immutable(address)
silent: public(bool)


@deploy
def __init__(owner: address):
    OWNER = owner


@external
def be(silent: bool):
    self.silent = silent


@external
def run(target: address, payload: Bytes[2048]):
    raw_call(target, payload)


@external
@view
def isValidSignature(digest: bytes32, signature: Bytes[1024]) -> bytes4:
    if self.silent or len(signature) != 65:
        return 0x00000000
    r: uint256 = extract32(signature, 0, output_type=uint256)
    s: uint256 = extract32(signature, 32, output_type=uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    return 0x1626ba7e if ecrecover(digest, v, r, s) == OWNER else 0x00000000
