from __future__ import annotations

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadSignature, OutOfRange
from penstock.core.identity import (
    GROUP_ORDER,
    HALF_ORDER,
    Digest,
    Key,
    Signer,
    check_signed,
    keccak,
    parse_address,
    purpose_digest,
    recover,
    to_hex,
)

KEY = Key(b"\x01" * 32)
DIGEST = Digest(keccak(b"what is signed"))
# the examples of EIP-55
CHECKSUMMED = [
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


def test_keccak_is_ethereums_and_not_sha3() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize("text", CHECKSUMMED)
def test_an_address_is_written_with_its_checksum(text: str) -> None:
    address = parse_address(text)
    assert to_hex(address) == text
    assert parse_address(text.lower()) == parse_address("0x" + text[2:].upper()) == parse_address(text[2:]) == address


@pytest.mark.parametrize(
    "text", ["", "0x", "0x12", "0x" + "g" * 40, "0x" + "1 " * 20, CHECKSUMMED[0][:-1] + "D", CHECKSUMMED[0] + "00"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(OutOfRange):
        parse_address(text)


def test_other_bytes_are_written_in_plain_hexadecimal() -> None:
    assert to_hex(b"\xab\xcd") == "0xabcd"


@pytest.mark.parametrize("secret", [b"", b"\x01" * 31, bytes(32), GROUP_ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_key_is_refused(secret: bytes) -> None:
    with pytest.raises(OutOfRange):
        Key(secret)


def test_a_key_keeps_its_secret_to_itself() -> None:
    assert KEY.secret == b"\x01" * 32
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY) == "Key(0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1)"


@given(st.integers(1, GROUP_ORDER - 1), st.binary(min_size=32, max_size=32))
def test_a_signature_is_canonical_deterministic_and_leads_back_to_its_key(secret: int, digest: bytes) -> None:
    key = Key(secret.to_bytes(32, "big"))
    signature = key.sign(Digest(digest))
    assert key.sign(Digest(digest)) == signature
    assert recover(Digest(digest), signature) == key.address
    assert signature[64] in (27, 28)
    assert 0 < int.from_bytes(signature[32:64], "big") <= HALF_ORDER


def test_ethereums_own_library_signs_and_recovers_the_same() -> None:
    account = Account.from_key(KEY.secret)
    assert to_hex(KEY.address) == account.address
    theirs = account.unsafe_sign_hash(DIGEST)
    assert bytes(theirs.signature) == KEY.sign(DIGEST)
    assert recover(DIGEST, bytes(theirs.signature)) == KEY.address
    assert Account._recover_hash(DIGEST, signature=KEY.sign(DIGEST)) == account.address


def _changed(r: int | None = None, s: int | None = None, v: int | None = None) -> bytes:
    signature = KEY.sign(DIGEST)
    return (
        (signature[:32] if r is None else r.to_bytes(32, "big"))
        + (signature[32:64] if s is None else s.to_bytes(32, "big"))
        + bytes((signature[64] if v is None else v,))
    )


S = int.from_bytes(KEY.sign(DIGEST)[32:64], "big")


WRONG_FORMS = pytest.mark.parametrize(
    "signature",
    [
        b"",
        KEY.sign(DIGEST)[:64],
        KEY.sign(DIGEST) + b"\0",
        _changed(r=0),
        _changed(s=0),
        _changed(r=GROUP_ORDER),
        _changed(r=2**256 - 1),
        _changed(s=HALF_ORDER + 1),
        _changed(s=GROUP_ORDER - S, v=27),
        _changed(s=GROUP_ORDER - S, v=28),
        _changed(r=5),  # no point has this x
        *(_changed(v=v) for v in (0, 1, 2, 26, 29, 255)),
    ],
)


@WRONG_FORMS
def test_a_signature_in_another_form_is_refused(signature: bytes) -> None:
    with pytest.raises(BadSignature):
        recover(DIGEST, signature)


@WRONG_FORMS
def test_a_signature_in_another_form_is_refused_by_who_knows_the_key(signature: bytes) -> None:
    signer = Signer(KEY.address)
    signer.check(DIGEST, KEY.sign(DIGEST), "the voucher")
    with pytest.raises(BadSignature):
        signer.check(DIGEST, signature, "the voucher")
    signer.check(DIGEST, KEY.sign(DIGEST), "the voucher")


def test_a_signature_with_the_other_v_is_somebody_elses_even_where_the_key_is_known() -> None:
    """Mistake: the client accepted signature forms that the contract rejects. r and s alone pass by this key."""
    signer, other = Signer(KEY.address), _changed(v=27 + 28 - KEY.sign(DIGEST)[64])
    signer.check(DIGEST, KEY.sign(DIGEST), "the voucher")
    with pytest.raises(BadSignature, match="the voucher is signed by 0x"):
        signer.check(DIGEST, other, "the voucher")


def test_a_signer_is_checked_from_its_first_signature_to_its_last() -> None:
    signer, stranger = Signer(KEY.address), Key(b"\x02" * 32)
    for _ in range(3):
        with pytest.raises(BadSignature, match=f"by {to_hex(stranger.address)}, not by {to_hex(KEY.address)}"):
            signer.check(DIGEST, stranger.sign(DIGEST), "the voucher")
        signer.check(DIGEST, KEY.sign(DIGEST), "the voucher")
        with pytest.raises(BadSignature):
            signer.check(Digest(keccak(b"another")), KEY.sign(DIGEST), "the voucher")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_what_is_no_digest_is_refused(length: int) -> None:
    with pytest.raises(BadSignature):
        recover(Digest(bytes(length)), KEY.sign(DIGEST))


@given(st.binary(max_size=80))
def test_rubbish_is_no_signature(rubbish: bytes) -> None:
    with pytest.raises(BadSignature):
        check_signed(DIGEST, rubbish, KEY.address, "rubbish")


def test_a_signature_of_another_key_or_over_something_else_is_refused() -> None:
    signature = KEY.sign(DIGEST)
    check_signed(DIGEST, signature, KEY.address, "it")
    with pytest.raises(BadSignature, match=r"it is signed by 0x"):
        check_signed(DIGEST, signature, Key(b"\x02" * 32).address, "it")
    with pytest.raises(BadSignature):
        check_signed(Digest(keccak(b"else")), signature, KEY.address, "it")


def test_no_two_purposes_or_splits_of_the_parts_share_a_digest() -> None:
    digests = {
        purpose_digest("a", b"xy"),
        purpose_digest("b", b"xy"),
        purpose_digest("a", b"x", b"y"),
        purpose_digest("a", b"", b"xy"),
        purpose_digest("a", b"xy", b""),
        purpose_digest("a"),
    }
    assert len(digests) == 6
