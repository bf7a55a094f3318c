"""The command line: ``seqrpc``, with the extra ``seqrpc[cli]``."""
