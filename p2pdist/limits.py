"""Every cap in the system: its unit, and why it has this size.

Whatever comes from outside is measured against one of these before memory or disk is spent on it.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# Names -------------------------------------------------------------------------------------------
CHANNEL_NAME_CHARS_MAX = 32  # a DNS label has 63; leaves room for generated suffixes
NAME_CHARS_MAX = 64  # a product, a group's own name: fits a table column
GROUP_PATH_CHARS_MAX = 512  # sixteen levels of long names
TARGET_PATH_CHARS_MAX = 400  # below the 255 bytes per part and 4,096 per path of common file systems
TEXT_CHARS_MAX = 4_000  # one reason, one detail: a screenful
OUTPUT_BYTES_MAX = 64 * KIB  # the tail of an installer's output that travels in a report
KEY_FILE_BYTES_MAX = 16 * KIB  # one private key, sealed or not, or one certificate

# Configuration -----------------------------------------------------------------------------------
CONFIG_BYTES_MAX = 1 * MIB  # written by people; the largest of ours has 4 KiB

# Metadata ----------------------------------------------------------------------------------------
ROOT_BYTES_MAX = 512 * KIB  # a root with dozens of keys has 20 KiB
TIMESTAMP_BYTES_MAX = 16 * KIB  # TUF's own default
SNAPSHOT_BYTES_MAX = 2 * MIB  # TUF's own default; 64 bins need 6 KiB
TARGETS_BYTES_MAX = 5 * MIB  # 10,000 releases in one role measured 2.8 MB
ROOT_ROTATIONS_MAX = 4_096  # counted from the root in the enrolment bundle: weekly for 78 years
BUNDLE_BYTES_MAX = 32 * MIB  # every role of a large fleet in one answer
GRANT_ADDRESSES_MAX = 16  # a point has a few interfaces and an outside address
BUNDLE_FILES_MAX = 5_000  # root's whole history plus 64 bins plus channels

# Frames and messages -----------------------------------------------------------------------------
FRAME_BYTES_MAX = 1 * MIB  # one control frame; larger things are requests with a body
REQUEST_BYTES_MAX = 1 * MIB  # one request's body, before it is decoded
ENVELOPE_BYTES_MAX = 512 * KIB  # one sealed message: a report with its output, a list of deployments
ENVELOPE_LIFE_S = 7 * 24 * 3600  # a laptop on holiday still gets its commands
CLOCK_LATE_S_MAX = 3_600  # behind the admin server's; a dead CMOS battery is off by years
CLOCK_SKEW_S = 300  # devices whose clocks differ by less still talk
TORRENT_BYTES_MAX = 16 * MIB  # 32 bytes per piece: 1 TiB in 4 MiB pieces needs 8 MiB
ENROL_BYTES_MAX = 64 * KIB  # a token, a public key and a platform description
ENROLMENT_BUNDLE_BYTES_MAX = 1 * MIB  # the trust root in base64, a certificate, addresses

# Links -------------------------------------------------------------------------------------------
LINK_STREAMS_MAX = 64  # open at once on one link, per direction
LINK_SEND_QUEUE_FRAMES = 256  # control frames waiting for a slow reader; beyond it senders wait
LINK_SEND_QUEUE_BYTES = 4 * MIB  # the same in bytes: four of the largest frames
LINK_WINDOW_BYTES = FRAME_BYTES_MAX + 128 * KIB  # unread on one stream: a whole frame, and some to come
LINK_TRANSIT_BYTES = 4 * MIB  # unread by the process on one link: 300 ms at 100 Mbit/s
LINK_BODIES_BYTES_MAX = 4 * MIB  # request bodies under way on one link, until they are answered
LINK_REQUESTS_RUNNING_MAX = 8  # requests of one link that are worked on at once; the others wait
LINK_HEADER_BYTES_MAX = 4 * KIB  # one header block, unpacked; ours have 100 bytes
LINK_OVERHEAD_BYTES = 64 * KIB  # control traffic before it counts as a flood
LINK_OVERHEAD_RATIO = 8  # bytes of control traffic that one byte of content makes up for
LINK_OVERHEAD_FORGIVEN_BYTES = KIB  # each LINK_WATCH_S; two pings and their answers are 68 bytes
LINK_WATCH_S = 5.0  # how often a link's silence and deadlines are looked at
LINK_RESETS_MAX = 128  # requests given up by the asker, beyond those that it let finish
LINK_RATE_MIN_BYTES_PER_S = 8 * KIB  # an answer that comes slower than this is given up
LINK_CLOSE_S = 2.0  # to say goodbye; then the connection is cut
LINK_STRANGER_S = 60.0  # a connection without a certificate: one enrolment with its answer
LINK_STRANGERS_MAX = 256  # connections without a certificate at once
LINK_HANDSHAKE_S = 10.0  # TLS and the HTTP/2 preface; a slow 3G link needs 3
LINK_KEEPALIVE_S = 20.0  # below the 30 s at which careless NATs forget a TCP connection
LINK_DEAD_AFTER_S = 45.0  # two keepalives and their answers lost
LINK_AWAITED_S = 2.0  # of silence before a neighbour that somebody waits for is asked for a sign of life
LINK_ANSWER_S = 2.5  # for that sign, twice; a full queue at a slow line's end holds a second or two
REQUEST_TIMEOUT_S = 30.0  # one request without an answer
LINK_PATIENCE_S = 1.0  # a handshake that waits longer for the other side loses its place to others
LINKS_PENDING_MAX = 1_024  # accepted, not yet through the handshake

# Envelopes that wait on a gateway -----------------------------------------------------------------
MAILBOX_ENVELOPES_MAX = 65_536  # four for each of 15,000 devices; what is remembered of them takes 30 MB
MAILBOX_BYTES_MAX = 256 * MIB  # the same at 4 KiB each; the smallest disks of distribution points have 8 GB
MAILBOX_PAIR_ENVELOPES_MAX = 512  # of one device in one direction: two days of heartbeats
MAILBOX_PAIR_BYTES_MAX = 8 * MIB  # the same in bytes: sixteen of the largest
MAILBOX_PAIR_SHARE = 8  # one device may use at most this part of what is free: ten floods leave 44 %
MAILBOX_FLIGHT_ENVELOPES_MAX = 512  # sent over one link and not taken: 5,000 a second at 100 ms
MAILBOX_FLIGHT_BYTES_MAX = 2 * MIB  # the same in bytes: half of what a link queues
MAILBOX_UNSTORED_BYTES_MAX = 16 * MIB  # accepted and not on the disk yet; beyond it links wait
MAILBOX_COMMIT_S = (
    0.25  # until accepted envelopes are written: who is taken before, also over a WAN, needs no disk
)
MAILBOX_COMMIT_ENVELOPES = 256  # that wait for the disk or a receipt end the wait: half of one link's window
EXCHANGE_ENVELOPES_MAX = 16_384  # at the end of one link, before they are sent: each device of a gateway one
EXCHANGE_BYTES_MAX = 16 * MIB  # the same in bytes: a desired state has 1 KiB
EXCHANGE_OWN_SHARE = 16  # what is for the neighbour itself may only use this part: it may be a hostile device
POST_ENVELOPES_MAX = 256  # of a node itself that nobody answers for yet; beyond it they are not sent
MAILBOX_LOOK_S = 5.0  # how often what was refused, stuck or has expired is looked at
GATEWAYS_IN_A_ROW_MAX = 8  # between a device and the admin server; three are a deep network
NODES_CARRIED_MAX = 20_000  # by one gateway: as many as these machines give a process file descriptors
NODES_BELOW_MAX = 250_000  # that a node knows the way to: the largest fleet twice, while all of it moves
ATTACHED_MAX = 8_192  # nodes in one frame: 350 KB

# Swarm -------------------------------------------------------------------------------------------
PEERS_PER_TORRENT_MAX = 64  # a site of 8 to 50 devices forms a full mesh; larger ones a random one
CANDIDATES_MAX = 512  # sources considered in one decision
ORIGIN_DEVICES_MAX = 4  # of a site whose point has no room: they share the WAN, a stuck one holds nobody up
TORRENTS_ACTIVE_MAX = 256  # artifacts that one node seeds at once
PIECE_BYTES_MIN = 64 * KIB
PIECE_BYTES_MAX = 4 * MIB

# Artifacts ---------------------------------------------------------------------------------------
ARTIFACT_BYTES_MAX = 1024 * GIB
TREE_ENTRIES_MAX = 1_000_000  # files, directories and links in one tree
TREE_BYTES_MAX = 1024 * GIB  # unpacked; a signed target states its own, smaller number
TREE_PATH_BYTES_MAX = 3_072  # one name inside a tree: below PATH_MAX with room for the install root
COMMAND_TIMEOUT_S_MAX = 24 * 3600  # one installer's run

# A device's own state -------------------------------------------------------------------------------
FETCHES_ACTIVE_MAX = 4  # artifacts that one device fetches at once for itself; more only share its line
REFUSALS_UNCONFIRMED_MAX = 256  # a bad source makes one each, an attacker as many as it likes
REPORTS_OUTPUT_BYTES_MAX = 4 * MIB  # output of unconfirmed reports; beyond it a report has 1 KiB
JOURNAL_RECORD_BYTES_MAX = 1 * MIB  # one record of a journal: a report with its output
JOURNAL_RECORDS_MAX = 50_000  # 1,000 deployments, 10,000 products, what is unconfirmed; a multiple of it

# The admin server's state ---------------------------------------------------------------------------
REVOKED_NAMED_MAX = 5_000  # to one point: those of one certificate life, 34 bytes each in a message
CLONE_SIGHTINGS_MAX = 100  # of each device, the newest; a clone tries again every minute
CERTIFICATES_KEPT_S = 30 * 24 * 3600  # after they expired, for whoever looks into an incident
REFUSALS_KEPT_MAX = 100_000  # the newest: one bad release on every device of a large fleet
AUDIT_KEPT_MAX = 1_000_000  # the newest: years of daily work, some 200 MB

# The admin server's HTTP API ------------------------------------------------------------------------
API_BODY_BYTES_MAX = 1 * MIB  # one JSON request of an operator
PUBLICATION_BYTES_MAX = 96 * MIB  # a whole metadata bundle and torrents, in base64
API_SILENCE_S = 60.0  # an upload or a body of which nothing comes for so long has been given up
API_ROWS_MAX = 1_000  # rows of a log in one answer
DISK_RESERVE_BYTES = 64 * MIB  # an upload leaves this much for the database and the metadata
PROFILE_BYTES_MAX = 64 * KIB  # an operator's profile, a token file
