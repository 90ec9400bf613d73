"""Conformance kits: a backend is right when it passes its kit. docs/conformance.md says what goes through which.

    rail             a payment method: two ends and a ledger, the nine properties
    ledger           core.ports.Ledger: a ledger of channels
    escrow_ledger    core.ports.EscrowLedger: a ledger of escrows
    meter            core.ports.Meter and core.ports.Valve: a device
    two_way          core.ports.TwoWayValve and core.ports.Throttle: a device through which the flow may turn round
    transport        core.ports.Link
    journal          core.ports.Journal

A kit is plain functions that raise AssertionError with what was not kept; they need no test framework.
"""
