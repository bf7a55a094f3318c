"""What is measured against what: one module a peer, each with a ``PEER``, found by ``benchmarks.peers.registry``."""
