"""What libtorrent is told of one artifact."""

from __future__ import annotations

import libtorrent as lt

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.swarm.model import Artifact


def torrent_parameters(artifact: Artifact, ca_pem: bytes) -> tuple[lt.add_torrent_params, lt.torrent_info]:
    """Return what adds *artifact* to a session, stopped, and what its torrent says.

    Raises:
        UsageError: the torrent is of something else.
    """
    parameters = lt.load_torrent_buffer(artifact.torrent)
    info = parameters.ti
    if info is None or info.info_hashes().v2.to_bytes().hex() != artifact.info_hash:
        raise UsageError(f"the torrent of {artifact.info_hash} is of something else")
    parameters.save_path = str(artifact.path.parent)
    parameters.renamed_files = {0: artifact.path.name}
    parameters.root_certificate = ca_pem.decode()
    parameters.max_connections = limits.PEERS_PER_TORRENT_MAX
    parameters.flags = _flags(sealed=artifact.sealed)
    return parameters, info


def _flags(*, sealed: bool) -> int:
    """Return the flags of a new torrent: found by nobody, managed by us, started once it has its key."""
    flags = (
        lt.torrent_flags.paused
        | lt.torrent_flags.update_subscribe
        | lt.torrent_flags.apply_ip_filter
        | lt.torrent_flags.duplicate_is_error
        | lt.torrent_flags.disable_dht
        | lt.torrent_flags.disable_lsd
        | lt.torrent_flags.disable_pex
    )
    if sealed:
        flags |= lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
    return flags
