"""One record: what is genuine verifies, and whatever is changed, unsigned or not to be billed is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from decimal import Decimal
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from tests.gateways.records import KEBA, KEBA_KEY, base64_of, key, payload, record, row, sign, text

from penstock.core.errors import BadReading
from penstock.core.meter import Reading
from penstock.core.units import MAX_QUANTITY, Instant, Quantity
from penstock.gateways.ocmf import OcmfKey, OcmfReading, verify

METER = OcmfKey.parse(KEBA_KEY)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HEAD, PAYLOAD, SIGNATURE = KEBA.split("|")
SIGNED = bytes.fromhex(json.loads(SIGNATURE)["SD"])
AT = Instant(1_795_338_000_000)  # ten o'clock of `row`


def refused(said: bytes | str, why: str, meter: OcmfKey | None = None) -> None:
    with pytest.raises(BadReading, match=why) as error:
        verify(said, meter or key())
    assert "\n" not in error.value.line()
    assert len(error.value.line()) < 300


def signed(signature: bytes, **fields: Any) -> str:
    """The genuine payload with another signature section."""
    return f"{HEAD}|{PAYLOAD}|{json.dumps({'SD': signature.hex(), **fields})}"


def test_the_genuine_record_says_what_the_meter_showed() -> None:
    found = verify(KEBA, METER)
    assert (found.context, found.page, found.gateway, found.meter) == ("T", 32, "17619300", "")
    assert (found.register, found.unit) == ("1-b:1.8.0", "kWh")
    assert found.readings == (
        OcmfReading(Decimal("259.6"), Instant(1_565_690_595_000), "I", "B"),
        OcmfReading(Decimal("259.7"), Instant(1_565_690_616_000), "R", "E"),
    )
    assert found.payload == PAYLOAD.encode()
    assert found.reading == Reading(Quantity(259), Instant(1_565_690_616_000), KEBA.encode())


def test_blanks_around_a_record_are_passed_over() -> None:
    assert verify(f" {KEBA}\r\n", METER) == verify(KEBA.encode(), METER)


def test_each_single_bit_flipped_in_the_payload_is_refused() -> None:
    before, after = f"{HEAD}|".encode(), f"|{SIGNATURE}".encode()
    for flipped in _flips(PAYLOAD.encode()):
        refused(before + flipped + after, ".", METER)


def test_each_single_bit_flipped_in_the_decoded_signature_is_refused() -> None:
    for flipped in _flips(SIGNED):
        refused(signed(flipped), ".", METER)
        refused(signed(b"", SE="base64", SD=base64.b64encode(flipped).decode()), ".", METER)


def test_each_single_bit_flipped_anywhere_in_the_text_is_refused() -> None:
    """In the digits of the signature, too, where a bit turns a letter's case, and decodes to the same bytes."""
    for flipped in _flips(KEBA.encode()):
        refused(flipped, ".", METER)


def _flips(data: bytes) -> list[bytes]:
    whole = int.from_bytes(data, "big")
    return [(whole ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def test_each_byte_left_out_or_put_in_is_refused() -> None:
    data = PAYLOAD.encode()
    for at in range(len(data)):
        for changed in (data[:at] + data[at + 1 :], data[:at] + b" " + data[at:]):
            refused(f"{HEAD}|".encode() + changed + f"|{SIGNATURE}".encode(), ".", METER)


R, S = decode_dss_signature(SIGNED)


@pytest.mark.parametrize(
    "other",
    [
        SIGNED + b"\0",
        SIGNED[:-1],
        b"\x30\x81\x45" + SIGNED[2:],  # a long form of the length
        b"\x30\x80" + SIGNED[2:] + b"\0\0",  # an indefinite one
        b"\x30\x46\x02\x21\x00" + SIGNED[4:],  # an r with a zero in front
        b"\x30\x44" + SIGNED[2:36] + b"\x02\x20" + SIGNED[39:],  # an s without its own
        R.to_bytes(32, "big") + S.to_bytes(32, "big"),
        encode_dss_signature(R + ORDER, S),
        encode_dss_signature(R, S + ORDER),
        encode_dss_signature(R, 0),
        encode_dss_signature(0, S),
        encode_dss_signature(0, 0),
        encode_dss_signature(1, 1),
        b"\x30\0",
    ],
)
def test_another_form_of_a_genuine_signature_is_refused(other: bytes) -> None:
    refused(signed(other), "canonical DER|forged|bare", METER)


def test_the_twin_of_a_signature_is_as_good() -> None:
    """So that nothing may be told apart by signatures; the genuine one has its s in the upper half."""
    assert S > ORDER // 2
    twin = verify(signed(encode_dss_signature(R, ORDER - S)), METER)
    assert twin.payload == verify(KEBA, METER).payload
    assert twin.text != KEBA.encode()


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_bare_hash_is_no_signature(digest: str) -> None:
    refused(signed(hashlib.new(digest, PAYLOAD.encode()).digest()), "unsigned.*bare SHA", METER)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (None, "unsigned"),
        ("", "unsigned"),
        (" ", "unsigned"),
        ("{}", "unsigned"),
        ('{"SD":""}', "unsigned"),
        ('{"SD":null}', "unsigned"),
        ('{"SD":0}', "unsigned"),
        ("[]", "no JSON object"),
        ("{", "no JSON"),
        ('{"SD":"00"}{"SD":"00"}', "no JSON"),
        ('{"SD":"00","SD":"' + SIGNED.hex() + '"}', "'SD' twice"),
        ('{"SD":"' + SIGNED.hex() + '","SA":"ECDSA-secp256r1-SHA1"}', "algorithm"),
        ('{"SD":"' + SIGNED.hex() + '","SA":"none"}', "algorithm"),
        ('{"SD":"' + SIGNED.hex() + '","SA":null}', "algorithm"),
        ('{"SD":"' + SIGNED.hex() + '","SA":["ECDSA"]}', "algorithm"),
        ('{"SD":"' + SIGNED.hex() + '","SA":"ECDSA-secp256k1-SHA256"}', "another meter"),
        ('{"SD":"' + SIGNED.hex() + '","SA":"ECDSA-secp192k1-SHA256"}', "algorithm"),
        ('{"SD":"' + SIGNED.hex() + '","SE":"base64"}', "not written in base64"),
        ('{"SD":"' + SIGNED.hex() + '","SE":"base32"}', "no way"),
        ('{"SD":"' + SIGNED.hex() + '","SE":null}', "no way"),
        ('{"SD":"' + SIGNED.hex() + '","SM":"text/plain"}', "kind"),
        ('{"SD":"' + SIGNED.hex() + ' "}', "not written in hex"),
        ('{"SD":"0x' + SIGNED.hex() + '"}', "not written in hex"),
        ('{"SD":"' + SIGNED.hex()[:-1] + '"}', "not written in hex"),
        ('{"SD":"' + SIGNED.hex()[:-1].upper() + SIGNED.hex()[-1].replace("9", "b") + '"}', "not written in hex"),
        ('{"SD":"' + SIGNED.hex() + '"}|' + KEBA_KEY, "more than two sections"),
        ('{"SD":"' + SIGNED.hex() + '"}|', "more than two sections"),
        ('{"SD":"' + SIGNED.hex() + '"}|{"SD":"' + SIGNED.hex() + '"}', "more than two sections"),
    ],
)
def test_a_signature_section_that_is_not_one_signature_is_refused(section: str | None, why: str) -> None:
    refused(f"{HEAD}|{PAYLOAD}" if section is None else f"{HEAD}|{PAYLOAD}|{section}", why, METER)


@pytest.mark.parametrize("said", ["", "OCMF", "ocmf|{}|{}", "{}", "OCMF|" + "x" * 70_000, b"OCMF|\xff|\xff", "\ud800"])
def test_what_is_no_ocmf_is_refused(said: bytes | str) -> None:
    refused(said, "no OCMF|unsigned|UTF-8")


def test_base64_is_taken_in_its_one_form() -> None:
    said = json.dumps(payload("T1", row(1)))
    encoded = base64_of(said)
    assert verify(text(said, SE="base64", SD=encoded), key()).page == 1
    assert encoded.endswith("=")
    loose = encoded.rstrip("=")[:-1] + chr(ord(encoded.rstrip("=")[-1]) + 1) + "=" * encoded.count("=")
    assert base64.b64decode(loose) == base64.b64decode(encoded)
    for other in (loose, encoded.rstrip("="), encoded + "\n", f"!{encoded}", encoded.replace("/", "_") + " "):
        refused(text(said, SE="base64", SD=other), "not written in base64")


CURVES = [
    ("secp192r1", "secp192r1"),
    ("secp256k1", "secp256k1"),
    ("secp256r1", "secp256r1"),
    ("secp384r1", "secp384r1"),
    ("secp521r1", "secp521r1"),
    ("brainpool256r1", "brainpoolP256r1"),
    ("brainpoolP256r1", "brainpoolP256r1"),
    ("brainpool384r1", "brainpoolP384r1"),
]


@pytest.mark.parametrize("digest", ["SHA256", "SHA512"])
@pytest.mark.parametrize(("named", "curve"), CURVES)
def test_every_algorithm_verifies_under_its_name(named: str, curve: str, digest: str) -> None:
    said = json.dumps(payload("T7", row(1)))
    signature, algorithm = sign(said, curve, digest).hex(), f"ECDSA-{named}-{digest}"
    assert verify(text(said, SD=signature, SA=algorithm), key(curve)).page == 7
    other = f"ECDSA-{named}-{'SHA512' if digest == 'SHA256' else 'SHA256'}"
    refused(text(said, SD=signature, SA=other), "forged", key(curve))
    refused(text(said, SD=signature, SA=algorithm), "another meter", key(curve, secret=99))


def test_a_record_by_another_meters_key_is_refused() -> None:
    refused(record("T1", 1), "forged, or another meter's", key(secret=99))
    refused(record("T1", 1), "another meter: on secp256r1, and the meter's key is on secp384r1", key("secp384r1"))


# ---- the payload, well signed


@pytest.mark.parametrize(
    ("value", "unit", "wh"),
    [
        (0, "kWh", "0"),
        (12, "kWh", "12000"),
        ("0.2596", "kWh", "259.6"),
        ("2935.600", "kWh", "2935600"),
        ("000012.5", "kWh", "12500"),
        ("1e3", "Wh", "1000"),
        ("1.5E-1", "kWh", "150"),
        ("4.35", "kWh", "4350"),  # 4.35 * 1000 is 4350 only by decimals: as floats it is 4349.999...
        ("8.03", "kWh", "8030"),
        ("259.7", "Wh", "259.7"),
        ("0.000000000001", "kWh", "0.000000001"),
        ("9999999999999.123456789012", "kWh", "9999999999999123.456789012"),
    ],
)
@pytest.mark.parametrize("quoted", [True, False])
def test_a_register_is_read_exactly_as_it_is_written(value: Any, unit: str, wh: str, quoted: bool) -> None:
    literal = str(value)
    if not quoted and literal.startswith("00"):
        return  # no JSON number
    said = json.dumps(payload("T1", row("@", RU=unit))).replace('"@"', f'"{literal}"' if quoted else literal)
    (found,) = verify(text(said), key()).readings
    assert found.register == Decimal(wh)
    assert found.total == int(Decimal(wh))


@pytest.mark.parametrize(
    "value",
    [
        "", " 1", "1 ", "1_0", "-1", "+1", "1,5", ".5", "1.", "1e", "1e400", "1e-400", "NaN", "Infinity", "0x10", "٣",
        "1" * 14, "1." + "1" * 13, None, True, [], {}, -1, 1e300, "1e99",
    ],
)  # fmt: skip
def test_a_value_that_is_no_exact_number_is_refused(value: Any) -> None:
    refused(record("T1", value), "no number that can be billed|nobody can bill")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "-0", "1" * 5000, "1e99999999999999999999", "01"])
def test_a_literal_that_no_register_shows_is_refused(literal: str) -> None:
    refused(text(json.dumps(payload("T1", row("@"))).replace('"@"', literal)), "no number|no JSON")


def test_a_number_anywhere_else_is_not_even_converted() -> None:
    said = json.dumps(payload("T1", row(1), UX="@")).replace('"@"', "1" * 5000)
    assert verify(text(said), key()).page == 1


def test_a_register_beyond_what_a_total_holds_is_refused() -> None:
    assert verify(record("T1", str(MAX_QUANTITY // 10**9) + "e6"), key()).last.total <= MAX_QUANTITY
    refused(record("T1", str(MAX_QUANTITY // 10**9 + 1) + "e6"), "nobody can bill")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        *(({"ST": status}, "not well") for status in ("N", "T", "D", "R", "M", "X", "I", "O", "S", "E", "F", "g", "")),
        ({"ST": None}, "not well"),
        ({"ST": 1}, "ST is no text"),
        *(({"EF": flags}, "flags an error") for flags in ("E", "t", "Et", " ", "x")),
        ({"EF": 1}, "EF is no text"),
        ({"TX": "X"}, "flags an error"),
        ({"TX": "Q"}, "for no reason"),
        ({"TX": 1}, "TX is no text"),
        ({"RU": "mOhm"}, "not read in kWh or Wh"),
        ({"RU": "KWH"}, "not read in kWh or Wh"),
        ({"RU": None}, "not read in kWh or Wh"),
        ({"RI": None}, "no register"),
        ({"RI": "1-b:2.8.0"}, "no register"),  # energy fed back
        ({"RI": "01-00:C0.08.00*FF"}, "no register"),
        ({"RI": "01-00:16.07.00"}, "no register"),  # power
        ({"RI": "01-00:00.08.06"}, "no register"),  # time
        ({"RI": "1-0:1.8.0*198"}, "no register"),  # a copy of an earlier value
        ({"RI": "nonsense"}, "no register"),
        ({"RI": "1-b:1.8.0\u2028"}, "no register"),
        ({"RI": " 1-b:1.8.0"}, "no register"),
        ({"RI": 1}, "RI is no text"),
        ({"TM": "2026-11-22T10:00:00,000+0100"}, "time is malformed"),
        ({"TM": "2026-11-22T10:00:00,000 S"}, "time is malformed"),
        ({"TM": "2026-11-22T10:00:00+0100 S"}, "time is malformed"),
        ({"TM": "2026-11-22T10:00:00,000+0100 Q"}, "time is malformed"),
        ({"TM": "2026-11-22"}, "time is malformed"),
        ({"TM": "٢026-11-22T10:00:00,000+0100 S"}, "time is malformed"),
        ({"TM": "2026-13-22T10:00:00,000+0100 S"}, "malformed at RD.0.TM"),
        ({"TM": "2026-02-29T10:00:00,000+0100 S"}, "malformed at RD.0.TM"),
        ({"TM": "2026-11-22T10:00:60,000+0100 S"}, "malformed at RD.0.TM"),
        ({"TM": "2026-11-22T10:00:00,000+9900 S"}, "malformed at RD.0.TM"),
        ({"TM": "1969-12-31T23:59:59,999+0000 S"}, "nobody can bill"),
        ({"TM": 1}, "TM is no text"),
        ({"TM": None}, "malformed"),
    ],
)
def test_a_reading_that_cannot_be_billed_is_refused(fields: dict[str, Any], why: str) -> None:
    refused(text(payload("T1", {**row(1), **fields})), why)


@pytest.mark.parametrize("missing", ["TM", "RV", "RI", "RU", "ST"])
def test_a_reading_without_what_a_bill_needs_is_refused(missing: str) -> None:
    whole = row(1)
    del whole[missing]
    refused(text(payload("T1", whole)), "malformed|no number|no register|kWh|not well")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{}", "no page"),
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("[" * 30_000, "no JSON"),
        ('{"UX":' + '{"a":' * 5_000 + "1" + "}" * 5_001, "no JSON"),
        ('{"PG":"T1","GS":"1","GS":"2"}', "'GS' twice"),
        ('{"PG":"T1","GS":"1","RD":[{"RV":1,"RV":2}]}', "'RV' twice"),
        ('{"PG":"T1","GS":"1","RD":[{"RV":1,"R\\u0056":2}]}', "'RV' twice"),
        ('{"PG":"T1","GS":"1"}', "no readings"),
        ('{"PG":"T1","GS":"1","RD":null}', "no readings"),
        ('{"PG":"T1","GS":"1","RD":[]}', "no readings"),
        ('{"PG":"T1","GS":"1","RD":{"0":{}}}', "no readings"),
        ('{"PG":"T1","GS":"1","RD":[1]}', "no object"),
        ('{"PG":"T1","RD":[]}', "names no meter"),
        ('{"PG":"T1","GS":"","MS":"","RD":[]}', "names no meter"),
        ('{"PG":"T1","GS":17619300,"RD":[]}', "GS is no text"),
    ],
)
def test_a_payload_that_is_malformed_is_refused(said: str, why: str) -> None:
    refused(text(said), why)


@pytest.mark.parametrize("page", ["", "T", "32", "T01", "T-1", "t1", "X1", "T1 ", "T1.0", "T٣", "T" + "9" * 19, None])
def test_a_record_without_a_page_is_refused(page: Any) -> None:
    refused(text(payload(page, row(1))), "no page")


def test_a_page_that_is_no_text_is_refused() -> None:
    refused(text(payload("", row(1), PG=1)), "PG is no text")


def test_readings_inherit_what_they_do_not_repeat() -> None:
    later = {"TM": "2026-11-22T10:01:00,000+0100 S", "RV": "1.5"}
    found = verify(text(payload("T1", row(1, 0, "C"), later)), key())
    assert [one.register for one in found.readings] == [1000, 1500]
    assert [one.reason for one in found.readings] == ["C", "C"]
    assert [one.at for one in found.readings] == [AT, AT + 60_000]


@pytest.mark.parametrize(
    "second", [{"RV": "0.9"}, {"TM": "2026-11-22T09:59:59,999+0100 S"}, {"TM": "2026-11-22T10:00:00,000+0200 S"}]
)
def test_a_register_or_clock_that_falls_within_a_record_is_refused(second: dict[str, Any]) -> None:
    refused(text(payload("T1", row(1), {**row(1), **second})), "falls within")


def test_of_several_registers_the_one_that_runs_on_is_billed() -> None:
    """A meter may show its transaction's own register beside, which begins at 0, and the energy fed back."""
    rows = [
        row("0.5", RI="01-00:B2.08.00*FF"), row(7, RI="01-00:C0.08.00*FF"), row(12, RI="01-00:B0.08.00*FF"),
        row("3.1", RI="01-00:B0.08.00", RU="Wh"),
    ]  # fmt: skip
    found = verify(text(payload("T1", *rows)), key())
    assert (found.register, found.unit, found.last.total) == ("01-00:B0.08.00*FF", "kWh", 12_000)
    alone = verify(text(payload("T1", *rows[:2])), key())
    assert (alone.register, alone.last.total) == ("01-00:B2.08.00*FF", 500)


def test_a_register_whose_unit_changes_within_a_record_is_refused() -> None:
    refused(text(payload("T1", row(1), row(2000, 1, RU="Wh"))), "not read in kWh or Wh throughout")


def test_an_error_of_any_register_spoils_the_record() -> None:
    refused(text(payload("T1", row(1), row(1, RI="01-00:C0.08.00*FF", ST="M"))), "not well")


@pytest.mark.parametrize("clock", "USIR")
def test_the_clocks_state_is_kept(clock: str) -> None:
    said = payload("F1", {**row(1), "TM": f"2026-11-22T10:00:00,007-0330 {clock}"})
    assert verify(text(said), key()).last.clock == clock
    assert verify(text(said), key()).last.at == AT + 7 + 4 * 3_600_000 + 1_800_000


def test_what_a_record_says_besides_is_not_looked_at() -> None:
    odd = {"ID": "é\n", "IT": 5, "IF": "none", "FV": 0.1, "LC": [], "UX": {"GS": None}, "CT": 0}
    assert verify(text(payload("T1", row(1), **odd)), key()).page == 1
