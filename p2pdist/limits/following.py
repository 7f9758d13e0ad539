"""Limits of following vendors' repositories, and of what is proposed. See :mod:`p2pdist.limits`."""

from __future__ import annotations

_KIB = 1024
_MIB = 1024 * _KIB

FOLLOW_URL_CHARS_MAX = 1_024  # of a repository or a file in it
FOLLOW_INDEXES_MAX = 16  # components of one task, and architectures: each pair is an index that is read
FOLLOW_GLOBS_MAX = 32  # patterns of packages in one task
FOLLOW_KEYS_MAX = 8  # that may sign one repository: two of them roll over at a time
FOLLOW_KEY_BYTES_MAX = 16 * _KIB  # one certificate; a distribution's, with what others said of it, has 9
FOLLOW_OFFERS_MAX = 256  # packages that one task follows, each for one architecture
FOLLOW_OFFERS_BYTES_MAX = 192 * _KIB  # of them together: they go into one message
RELEASE_BYTES_MAX = 4 * _MIB  # an InRelease; those of large distributions have 200 KB
RELEASE_FILES_MAX = 50_000  # that it lists, five for each component, architecture and language
SUMS_BYTES_MAX = 4 * _MIB  # a list of checksums: 40,000 files
LISTING_BYTES_MAX = 4 * _MIB  # a page of links
LISTING_NAMES_MAX = 20_000  # files that a directory offers
PACKAGES_PACKED_BYTES_MAX = 64 * _MIB  # one index as it is fetched; a large distribution's has 10
PACKAGES_BYTES_MAX = 256 * _MIB  # ... and unpacked; a large distribution's has 60
PACKAGES_MEMORY_BYTES_MAX = 80 * _MIB  # to unpack one: xz at its highest level needs 65
PACKAGE_BYTES_MAX = 256 * _KIB  # what an index says of one package; the longest has 30
FOLLOW_FILE_S_MAX = 900.0  # to fetch one index: 10 MB over a line that brings 12 KB/s
FOLLOW_AHEAD_S_MAX = 24 * 3600  # that an index may be dated in the future: a wrong time zone
PROPOSALS_MAX = 10_000  # kept by the admin server: 256 for each of forty tasks
PROPOSAL_LIFE_S = 90 * 24 * 3600  # that one is kept which is not offered any more
