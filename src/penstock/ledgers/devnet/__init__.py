"""An embedded EVM chain under Prague rules, behind a JSON-RPC server that several processes share.

`chain.Chain` is the chain in this process, `server.serve` puts it behind HTTP on loopback, `manifest` says where it is
and who is funded. It is a ledger for development and tests: no consensus, no reorganisation, every block final.
"""
