"""What may be believed, and why.

keys          Ed25519 keys: sealed key files, and the signer that TUF uses
catalog       what verified metadata says, as types: releases, recipes, seed grants
verifier      The Update Framework's stock verifier over a metadata directory and a bundle
repository    the publishing side: drafts, signatures, publication
certificates  the fleet's CA, node certificates and their names
sealing       envelopes between a node and the admin server
admission     who may act as a distribution point for whom

Nothing here touches the network; files only under directories that the caller names. Time comes in
as an argument wherever a decision depends on it.
"""
