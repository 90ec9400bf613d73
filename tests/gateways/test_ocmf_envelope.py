"""Signed texts out of OCPP's messages, as charge points of several makes send them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.gateways.records import KEBA, KEBA_KEY

from penstock.core.errors import BadReading
from penstock.gateways.ocmf import OcmfKey, texts, verify


def b64(said: str) -> str:
    return base64.b64encode(said.encode()).decode()


SIGNED = {
    "signedMeterData": b64(KEBA),
    "signingMethod": "",
    "encodingMethod": "OCMF",
    "publicKey": b64(f"oca:base16:asn1:{KEBA_KEY}"),
}
V16 = {"value": json.dumps(SIGNED), "format": "SignedData", "context": "Transaction.End"}
RAW = {"value": "259.6", "format": "Raw", "unit": "Wh"}


def values(*sampled: dict[str, Any]) -> dict[str, Any]:
    return {"connectorId": 1, "meterValue": [{"timestamp": "2019-08-13T10:03:36Z", "sampledValue": list(sampled)}]}


@pytest.mark.parametrize(
    "said",
    [
        KEBA,
        f"  {KEBA}\r\n",
        KEBA.encode().hex(),
        KEBA.encode().hex().upper(),
        json.dumps(SIGNED),
        json.dumps({**SIGNED, "signedMeterData": KEBA}),
        json.dumps(V16),
        json.dumps({**V16, "value": KEBA}),
        json.dumps({**V16, "value": KEBA.encode().hex()}),
        json.dumps(values(RAW, V16)),
        json.dumps([2, "19223201", "MeterValues", values(RAW, V16)]),
        json.dumps([2, "1", "StopTransaction", {"meterStop": 259, "transactionData": values(V16)["meterValue"]}]),
        json.dumps({"seqNo": 1, "meterValue": [{"sampledValue": [{"value": 259.6, "signedMeterValue": SIGNED}]}]}),
    ],
)
def test_the_text_comes_out_as_it_was_signed(said: str) -> None:
    assert texts(said) == [KEBA]
    assert verify(texts(said)[0], OcmfKey.parse(KEBA_KEY)).page == 32


def test_all_signed_values_of_a_message_come_out_in_order() -> None:
    other = KEBA.replace("T32", "T33")
    said = values(V16, RAW, {**V16, "value": other})
    assert texts(json.dumps(said)) == [KEBA, other]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "hello",
        "OCMF",
        "abc",
        "00",
        "{}",
        "[]",
        "{",
        json.dumps(values(RAW)),
        json.dumps({**RAW, "value": KEBA}),
        json.dumps({**SIGNED, "signedMeterData": "?"}),
        json.dumps({**SIGNED, "signedMeterData": ""}),
        json.dumps({**SIGNED, "signedMeterData": b64("<signedMeterValue/>")}),
        json.dumps({**SIGNED, "signedMeterData": base64.b64encode(b"\xff\xfe").decode()}),
        json.dumps({**V16, "value": "{}"}),
        json.dumps({**V16, "value": "\ud800"}),
        '{"value": "\ud800"}',
        json.dumps({**V16, "value": "259"}),
        "[" * 5_000,
        "[" * 50 + "]" * 50,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
    ],
)
def test_what_carries_no_ocmf_is_refused_in_one_line(said: str) -> None:
    with pytest.raises(BadReading) as refused:
        texts(said)
    assert "\n" not in refused.value.line()


def test_text_within_text_ends_somewhere() -> None:
    said: dict[str, Any] = V16
    for _ in range(12):
        said = {"format": "SignedData", "value": json.dumps(said)}
    with pytest.raises(BadReading, match="deeply"):
        texts(json.dumps(said))
