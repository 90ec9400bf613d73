"""Target: what a meter signed, or should have. One byte says what the rest, a JSON array, is:

s   payloads of records, objects or raw text, each signed by the meter's key as it is taken: the adversary is the
    meter, or owns its key
t   texts as somebody brings them, bare or in OCPP's messages
k   keys in the forms in which they are met
"""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress
from decimal import Decimal
from typing import Any

from tests.gateways import records as made

from penstock.core.errors import BadReading, OutOfRange
from penstock.gateways.ocmf import OcmfKey, OcmfReadings, OcmfRecord, OcmfSeal, texts, verify
from penstock.sim.signing_meter import OcmfSigner

MOST = 12  # records of one case

_SIGNER = OcmfSigner(4711)
_KEBA = OcmfKey.parse(made.KEBA_KEY)


def ocmf(data: bytes) -> object:
    """One case; returns how the last of its parts ended."""
    try:
        parts = json.loads(data[1:])
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or data[:1] not in (b"s", b"t", b"k"):
        return "no case"
    if data[:1] == b"s":
        return _session(parts[:MOST])
    one = _text if data[:1] == b"t" else _key
    return [one(part) for part in parts[:MOST] if isinstance(part, str)][-1:]


def _session(payloads: list[Any]) -> list[str]:
    all_, some, outcomes = OcmfReadings(_SIGNER.key), OcmfReadings(_SIGNER.key, every=False), []
    for payload in payloads:
        said = payload if isinstance(payload, str) else json.dumps(payload)
        try:
            text = _SIGNER.sign(said).encode()
        except UnicodeEncodeError:
            continue
        before = all_.newest
        try:
            record = all_.take(text)
        except BadReading as error:
            assert all_.newest is before, "what is refused changes nothing"
            outcomes.append(_kind(error))
        else:
            _check_order(before, record)
            assert some.take(text) == record, "a peer takes what the gateway took"
            outcomes.append(f"{record.context} {len(record.readings)} {record.last.reason}")
            _check_record(record)
    _check_sealed(some.newest)
    return outcomes[-2:]


def _check_order(before: OcmfRecord | None, record: OcmfRecord) -> None:
    if before is not None:
        assert record.last.register >= before.last.register
        assert record.last.at >= before.last.at
        assert record.page == before.page + 1
        assert (record.gateway, record.meter) == (before.gateway, before.meter)


def _check_record(record: OcmfRecord) -> None:
    """It reads the same again, its values are exact, and it is refused by another key and with any one bit flipped."""
    assert verify(record.text, _SIGNER.key) == record
    assert record.payload in record.text
    for one in record.readings:
        assert one.register >= 0
        assert 0 <= one.register - one.total < 1
        assert isinstance(one.register, Decimal)
    start, bit = record.text.index(record.payload), zlib.crc32(record.text) % (8 * len(record.payload))
    flipped = bytearray(record.text)
    flipped[start + bit // 8] ^= 1 << bit % 8
    for text, key in ((record.text, _KEBA), (bytes(flipped), _SIGNER.key)):
        with suppress(BadReading):
            verify(text, key)
            raise AssertionError("a forged record was taken")


def _check_sealed(newest: OcmfRecord | None) -> None:
    if newest is not None:
        seal, reading = OcmfSeal(_SIGNER.key), newest.reading
        for _ in range(2):
            seal.check(reading.record, type(reading.total)(0), reading.at)


def _text(said: str) -> str:
    try:
        found = [verify(text, _KEBA) for text in texts(said)]
    except BadReading as error:
        return _kind(error)
    assert all(record.payload == made.KEBA.split("|")[1].encode() for record in found), "only one is signed by this key"
    return f"{len(found)} genuine"


def _key(said: str) -> str:
    try:
        key = OcmfKey.parse(said)
    except OutOfRange as error:
        return _kind(error)
    assert OcmfKey.parse(str(key)) == key == OcmfKey(key.der)
    return key.curve


def _kind(error: BadReading | OutOfRange) -> str:
    assert len(error.line().splitlines()) == 1, "an error is one line"
    return " ".join(str(error).partition(":")[0].split(" ")[:6])


def ocmf_seeds() -> list[bytes]:
    """Sessions in transactions and outside, both ends in one record, two registers; texts in every envelope; keys."""
    begin, within, end = made.row("1.000", 0, "B"), made.row("1.500", 60, "C"), made.row("2.000", 120, "E")
    other = made.row("0.5", 60, "C", RI="01-00:B2.08.00*FF", RU="Wh")
    sessions: list[list[Any]] = [
        [made.payload("T1", begin), made.payload("T2", within), made.payload("T3", end), made.payload("T4", begin)],
        [made.payload("T1", within), made.payload("T2", begin, end, UX=1)],
        [made.payload("F8", made.row(1)), made.payload("F9", made.row(2, 9, RU="kWh", EF="", ST="G"))],
        [made.payload("T1", within, other, MS="7"), made.payload("T2", within, other, MS="7")],
        [made.KEBA.split("|")[1]],
    ]
    value = {
        "format": "SignedData",
        "value": json.dumps({"signedMeterData": _b64(made.KEBA), "encodingMethod": "OCMF"}),
    }
    message = [2, "1", "MeterValues", {"meterValue": [{"sampledValue": [value]}]}]
    carried = [made.KEBA, made.KEBA.encode().hex(), json.dumps(value), json.dumps(message)]
    keys = [made.KEBA_KEY, _b64(made.KEBA_KEY), f"oca:base16:asn1:{made.KEBA_KEY}", made.der("secp384r1").hex()]
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(made.der()).decode()}\n-----END PUBLIC KEY-----\n"
    return [
        *(b"s" + json.dumps(session).encode() for session in sessions),
        *(b"t" + json.dumps([text]).encode() for text in carried),
        *(b"k" + json.dumps([text]).encode() for text in [*keys, pem]),
    ]


def _b64(said: str) -> str:
    return base64.b64encode(said.encode()).decode()
