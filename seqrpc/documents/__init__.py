"""The document that a server answers ``rpc.discover`` with: read, compared with another, turned into code.

A document comes from elsewhere, so nothing in it is trusted: :mod:`seqrpc.documents.model` reads it, and says what is
no such document.
"""
