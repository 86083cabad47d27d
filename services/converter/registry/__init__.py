"""A thin, suspicious client for Docker Registry v2 and OCI distribution.

`client` resolves references and streams blobs; `connection` adds authorization and turns answers
into errors that help; `transport` knows redirects, waiting and broken connections. Everything that
a registry says is bounded, validated and, where it has a digest, verified.
"""
