"""What may be believed, and why.

keys          Ed25519 keys: sealed key files, and the signer that TUF uses
catalog       what verified metadata says, as types: releases, recipes, seed grants
requirements  what a release asks for: prerequisites, mirrors, platforms
phrases       values of signed metadata in words
rolefiles     a role's file, with its types checked
signing       drafts, who must sign them and who has
changes       changes to drafts: channels, keys, grants
releases      changes to drafts: releases
differences   what would be signed, in words
exchange      drafts on their way to the people who sign them
verifier      The Update Framework's stock verifier over a metadata directory and a bundle
repository    the publishing side: drafts, signatures, publication
certificates  the fleet's CA, node certificates and their names
sealing       envelopes between a node and the admin server
admission     who may act as a distribution point for whom

Nothing here touches the network; files only under directories that the caller names. Time comes in
as an argument wherever a decision depends on it.
"""
