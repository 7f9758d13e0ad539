"""Every cap in the system: its unit, and why it has this size.

Whatever comes from outside is measured against one of these before memory or disk is spent on it.
"""

from __future__ import annotations

from p2pdist.limits.discovery import *  # noqa: F403 (a part of this list)
from p2pdist.limits.following import *  # noqa: F403 (a part of this list)

KIB, MIB, GIB = 2**10, 2**20, 2**30

# Names -------------------------------------------------------------------------------------------
CHANNEL_NAME_CHARS_MAX = 32  # a DNS label has 63; leaves room for generated suffixes
NAME_CHARS_MAX = 64  # a product, a group's own name: fits a table column
GROUP_PATH_CHARS_MAX = 512  # sixteen levels of long names
TARGET_PATH_CHARS_MAX = 400  # below the 255 bytes per part and 4,096 per path of common file systems
TEXT_CHARS_MAX = 4_000  # one reason, one detail: a screenful
RETRIES_MAX = 1_000_000  # asked of one device for one deployment; a device may name any number
RETRY_DEVICES_MAX = 1_000  # named in one request; without names it is all that failed
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
EXPORTS_KEPT_MAX = 16  # answers to neighbours who lack the same: most lack the newest, or everything
EXPORT_KEPT_BYTES_MAX = 1 * MIB  # of each; larger ones are read again
BUNDLE_FILES_MAX = 5_000  # root's whole history plus 64 bins plus channels

# Frames and messages -----------------------------------------------------------------------------
FRAME_BYTES_MAX = 1 * MIB  # one control frame; larger things are requests with a body
REQUEST_BYTES_MAX = 1 * MIB  # one request's body, before it is decoded
ENVELOPE_BYTES_MAX = 512 * KIB  # one sealed message: a report with its output, a list of deployments
ENVELOPE_LIFE_S = 7 * 24 * 3600  # a laptop on holiday still gets its commands
SEALING_BOXES_KEPT_MAX = 20_000  # agreed keys, by who is written to: those of one gateway, 0.5 KB each
CLOCK_LATE_S_MAX = 3_600  # behind the admin server's; a dead CMOS battery is off by years
CLOCK_SKEW_S = 300  # devices whose clocks differ by less still talk
TORRENT_BYTES_MAX = 16 * MIB  # 32 bytes per piece: 1 TiB in 4 MiB pieces needs 8 MiB
ENROL_BYTES_MAX = 64 * KIB  # a token, a public key and a platform description
ENROLMENT_BUNDLE_BYTES_MAX = 1 * MIB  # the trust root in base64, a certificate, addresses

# Links -------------------------------------------------------------------------------------------
LINK_STREAMS_MAX = 64  # open at once on one link, by each side
LINK_BYTE_STREAMS_MAX = 24  # of them, byte streams: sessions of operators, each with a window unread
LINK_QUESTIONS_MAX = LINK_STREAMS_MAX - LINK_BYTE_STREAMS_MAX - 1  # requests; one is the control stream
LINK_STREAM_QUEUE_BYTES = 64 * KIB  # waiting to be sent on one byte stream; beyond it senders wait
LINK_OPENING_BYTES_MAX = 2 * KIB  # what a byte stream is for: 2.7 KiB of its header in base64
LINK_REASON_CHARS_MAX = 200  # why a byte stream broke off: with its hint 2.1 KiB in base64 at most
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
DIAL_STAGGER_S = 0.25  # before a neighbour's next address is dialled, too (RFC 8305, section 5)
LINK_KEEPALIVE_S = 20.0  # below the 30 s at which careless NATs forget a TCP connection
LINK_DEAD_AFTER_S = 45.0  # two keepalives and their answers lost
LINK_LOST_S = 10.0  # until whoever loses the neighbour that carries it is with another, however it was lost
LINK_REDIAL_S = 2.0  # of them, once it is noticed: one for a neighbour that does not answer, and a handshake
LINK_PACES_S = (3.0, 6.0, 12.0)  # of keepalives where few neighbours ask: with 3 a hung one costs below 10 s
LINK_PACE_ASKED_PER_S = 300  # ... so many in a second at most: 3 % of a core for 900 neighbours, each 3 s
LINK_PROBE_AFTER_S = (
    3  # of silence before a dialler's kernel asks the other one: 35 bytes a second, no program
)
LINK_PROBE_EVERY_S = 1  # four of them: at 5 % loss none arrives once in ten thousand times
LINK_UNREACHABLE_S = 7  # without a word of the other kernel: with dialling somebody else, below 10 s
QUESTIONS_PASSED_AT_ONCE = 2  # of one device, by its point: metadata and a torrent
FRAMES_PER_S = 100  # of one device that are handled in the long run: ten times what a deployment makes it say
FRAMES_BURST_S = 6  # so many seconds' worth at once: a whole window of envelopes after an outage
FRAMES_GATEWAY_FACTOR = 100  # a gateway speaks for so many at a time: 10,000 frames a second fill a core
FRAMES_PAUSE_S = 0.05  # until the next five: fewer wake-ups than frames
LINK_AWAITED_S = 1.0  # of silence before a neighbour that somebody waits for is asked for a sign of life
LINK_ANSWER_S = 2.5  # for that sign, twice; a full queue at a slow line's end holds a second or two
REQUEST_TIMEOUT_S = 30.0  # one request without an answer
LINK_PATIENCE_S = 1.0  # a handshake that waits longer for the other side loses its place to others
BROADCAST_TURN_S = 0.02  # of one frame to many links, until everything else has its turn: 300 links
BROADCAST_TURN_S_MAX = 0.5  # the same while all else takes long: below what anybody waits for an answer
LINK_HANDSHAKE_STEPS = 8  # of all handshakes, until everything else has its turn: 10 ms
LINKS_BEGUN_MAX = 128  # of those that do not keep us waiting: 150 a second, and round trips of 0.8 s
LINKS_PENDING_MAX = 1_024  # in the middle of the handshake, with those that keep us waiting
LINKS_WAITING_MAX = 2_048  # before it: more than a gateway takes in until they give up, and files are scarce
LINK_ROW_S = 5.0  # before it, while others come; then a dialler had better look elsewhere, or begin anew
CERTIFICATES_READ_MAX = 16_384  # those of a gateway's devices, at 1 KB: to read one takes 0.1 to 0.3 ms

# Sessions ----------------------------------------------------------------------------------------
SESSION_CHUNK_BYTES = 16 * KIB  # in one frame of a path: 6 ms at 20 Mbit/s, so that an answer is not held up
SESSION_WINDOW_BYTES = 512 * KIB  # unread, or perhaps not arrived, in one direction: 100 Mbit/s at 40 ms
SESSION_FRAME_BYTES_MAX = SESSION_CHUNK_BYTES + 8 * KIB  # a reset with a long reason
SESSION_SIGNAL_BYTES_MAX = 8 * KIB  # one description of how to be reached: two dozen candidates
SESSION_HANDSHAKE_S = 10.0  # TLS, the question and its answer; a slow 3G link needs 3
SESSION_FINISH_S = 5.0  # at the end, until the other side has everything
SESSION_PING_S = 2.0  # of silence on a path before the other side is asked for a sign of life
SESSION_SILENT_S = 5.0  # of silence until a path counts as dead: failover in seconds
SESSION_GAPS_MAX = 8  # pieces that came before those in front of them: one for each change of path
SESSION_PATHS_MAX = 8  # open at once: relayed, punched, direct, and successors of each
TUNNEL_CONNECTIONS_MAX = 32  # through one tunnel at once: five browser windows with six each
TUNNEL_CONNECT_S = 5.0  # to a port of the device itself; far below REQUEST_TIMEOUT_S: a refusal is heard
TUNNEL_WINDOW_BYTES = 256 * KIB  # unread of one of them: 50 Mbit/s at 40 ms; of all 8 MiB
LOG_TAIL_LINES = 1_000  # of a node's own log, in memory for operators: 200 KB as a rule
LOG_TAIL_LINE_CHARS = 2_000  # of each; a traceback's beginning
SESSIONS_MAX = 32  # open at once on one device: operators, each with some tunnels
SESSIONS_RELAYED_MAX = 1_000  # known to one admin server: what a large help desk has open
SESSION_INVITE_S = 3.0  # that a path waits for its invitation: mailboxes may be slower than it
SESSION_INVITES_MAX = 64  # that have not begun; the oldest give way
SESSION_PATHLESS_S = 60.0  # without any path until a session is given up: a router that restarts costs 15 s

# STUN --------------------------------------------------------------------------------------------
STUN_SERVERS_MAX = 8  # that a node is told of: two addresses each of its gateway, some above, and the server
STUN_LOOK_S = 30.0  # how often a gateway looks whether its addresses have changed, or a port is free by now
STUN_BYTES_MAX = 1_280  # one message: what IPv6 carries in one piece everywhere
STUN_REQUEST_BYTES = 92  # of our requests: an answer over IPv6 with its three addresses is not larger
STUN_SOURCES = 8_192  # buckets that sources share by chance; 16 bytes each, whoever comes
STUN_SOURCE_BURST = 400  # answers to one address at once: 30 devices behind one NAT, 13 each
STUN_SOURCE_PER_S = 40  # ... and in the long run: 3 devices in a second
STUN_STRANGERS_PER_S = 4_000  # answers to sources that nobody knows, 50 us each: 20 % of one core
STUN_BATCH = 32  # datagrams of one socket between two checkpoints: 2 ms at most
STUN_RECEIVE_BYTES = 1 * MIB  # of one socket in the kernel, as far as that allows: a burst
PROBES_MAX = 4  # gateways that a node asks about its NATs at once: nearest and farthest, both families
PROBES_SETTLE_S = 1.0  # after a link stands: the first one is often left for a better one at once
PROBES_EVERY_S = 5.0  # between two looks of one node, however often its link changes
PROBES_KNOWN_S = 16.0  # that somebody waits for a look: those five, one to settle, two rounds of 4.5 s
PROBE_RTO_S = 0.5  # before the first repetition of a request (RFC 8489 section 6.2.1)
PROBE_REQUESTS_MAX = 4  # sent at 0, 0.5, 1.5 and 3.5 s: at 5 % loss one in 10,000 has no answer
PROBE_LAST_WAIT_S = 1.0  # after the last; a geostationary satellite's round trip is 0.6

# Wakes ---------------------------------------------------------------------------------------------
WAKE_ADDRESSES_MAX = 8  # of one device: two families, a few interfaces
WAKE_PAUSES_S = (0.25, 0.5, 1.5, 3.0, 6.0, 15.0, 30.0, 60.0)  # a lost datagram; a machine that has to boot
WAKES_PER_S = 100.0  # by one sender: each woken device links, and a gateway takes in 150 in a second
WAKING_MAX = 20_000  # at once, by one sender: as many as one gateway carries; 300 bytes each
WAKE_LIFE_S = 7_200  # until a wake is of no use: all attempts take two minutes, clocks may be an hour off
WAKE_AWAITED_S = 15.0  # for a device that is to come for a session: below what its operator's request waits
WAKE_COUNTERS = 1_024  # reserved at once by the admin server: so many are left out at its restart
WAKE_ORDERS_MAX = 64  # in one message to a distribution point: 32 KB
WAKE_SEGMENTS_MAX = 16  # interfaces of one machine: a router has a few
WAKES_READ_PER_S = (
    50  # datagrams that a resting device looks at: 0.35 ms each: 2 % of a core; the kernel drops the others
)
WAKES_READ_BURST = 20  # ... and at once
WAKE_RECEIVE_BYTES = 16 * KIB  # unread in the kernel: 20 datagrams, so that a flood is not worked off later
RESTING_KNOWN_MAX = 250_000  # devices that the admin server can wake: the largest fleet twice; 400 bytes each

# Resting devices -------------------------------------------------------------------------------------
REST_LOOK_S_MIN = 10  # how often a resting device looks by itself, at least apart
REST_AWAKE_S_MAX = 300.0  # without a link to anybody, until it rests again and looks later
REST_CHECK_S = 1.0  # how often a device that is awake looks whether it is idle: a dozen comparisons
REST_GOODBYE_LOOK_S = 0.1  # how often a device that says goodbye looks whether its words were taken
SLEEP_COMMAND_S_MAX = 60.0  # for the command that sends the machine back to sleep

# Punched paths -----------------------------------------------------------------------------------
PUNCH_S = 10.0  # from the first address to an open path; a working one needs 0.4 s at 60 ms round trip
PUNCH_GATHER_S = 1.1  # for the STUN servers: a request that is lost, repeated after 0.5 s, and a slow answer
PUNCH_GATHER_GRACE_S = 0.1  # for the other interfaces, once a server has shown the NAT before one
PUNCH_GATHER_OPEN_S = 0.3  # ... once one has answered and saw no NAT: that of a server farther out may show
PUNCH_SKEW_S_MAX = 1.0  # that the leading side waits, so that both start at once: half of a bad round trip
PUNCH_SIGNALS_MAX = 16  # of one session that wait to be sent; an attempt has two
PUNCH_AGAIN_S = 0.5  # after a path is lost that stood for long: a NAT that moved to another port
PUNCH_AGAIN_FAILED_S = 5.0  # after the first failure, doubled with each: 5, 10, 20 s
PUNCH_AGAIN_S_MAX = 300.0  # ... up to this: a laptop that changes networks has a path within minutes
PUNCH_STABLE_S = 10.0  # a path that was lost sooner counts as a failure
PUNCH_ATTEMPTS_KEPT = 8  # that a session can tell of
PUNCH_HOSTS_MAX = 4  # own addresses of each family that are tried: a laptop with cable, Wi-Fi and VPN has 3
PUNCH_CANDIDATES_MAX = 24  # of one side: own addresses of both families, each seen by two STUN servers
PUNCH_PAIRS_TOLD_MAX = 64  # of one attempt in its report
PUNCH_PORTS_MAX = 1_000  # that an operator may name: each is tried when all are taken, 10 ms
PUNCH_PAIRS_MAX = 256  # address pairs in one attempt, with those that only the peer's packets show
PUNCH_DESCRIPTION_BYTES_MAX = 4 * KIB  # 24 candidates of IPv6 have 2 KiB
PUNCH_STUN_BYTES = 128  # our request; the largest answer, with every address attribute in IPv6, has 116
PUNCH_DATAGRAMS_MAX = 512  # unread by DTLS on one path: 600 KiB; what is beyond is lost, as on any wire
PUNCH_SOCKET_BYTES = 512 * KIB  # the kernel's buffer for a path's socket: 60 ms at 8 MB/s
PUNCH_WINDOW_BYTES = 256 * KIB  # sent and not yet read, per direction: 4 x the congestion window
PUNCH_FRAME_BYTES = 16 * KIB  # content of one message: every WebRTC stack takes 16 KiB
PUNCH_FRAME_COST_MIN = 512  # credit for a shorter one: SCTP often looks at all that are under way
PUNCH_CONGESTION_BYTES = 64 * KIB  # in SCTP's flight: with more, a slow uplink with a deep buffer times out
PUNCH_REASSEMBLY_CHUNKS_MAX = 1_024  # of messages with gaps: twice a window of the shortest messages
PUNCH_PULSE_S = 0.5  # between two signs of life
PUNCH_DEAD_AFTER_S = 3.0  # of silence: five signs and their answers lost in a row
PUNCH_CLOSE_S = 2.0  # without progress of what was sent before the end; SCTP repeats after 1 s
ISLAND_CLOSE_S = 5.0  # for every path on the island to end; then its thread is left behind

# Envelopes that wait on a gateway -----------------------------------------------------------------
MAILBOX_ENVELOPES_MAX = 65_536  # four for each of 15,000 devices; what is remembered of them takes 30 MB
MAILBOX_BYTES_MAX = 256 * MIB  # the same at 4 KiB each; the smallest disks of distribution points have 8 GB
MAILBOX_PAIR_ENVELOPES_MAX = 512  # of one device in one direction: two days of heartbeats
MAILBOX_PAIR_BYTES_MAX = 8 * MIB  # the same in bytes: sixteen of the largest
MAILBOX_PAIR_SHARE = 8  # one device may use at most this part of what is free: ten floods leave 44 %
MAILBOX_FLIGHT_ENVELOPES_MAX = 512  # sent over one link and not taken: 5,000 a second at 100 ms
MAILBOX_FLIGHT_BYTES_MAX = 2 * MIB  # the same in bytes: half of what a link queues
MAILBOX_UNSTORED_BYTES_MAX = 16 * MIB  # accepted and not on the disk yet; beyond it links wait
MAILBOX_COMMIT_S = 0.25  # until accepted envelopes are written: those taken before need no disk
MAILBOX_COMMIT_ENVELOPES = 256  # that wait for the disk or a receipt end the wait: half of one link's window
EXCHANGE_ENVELOPES_MAX = 16_384  # at the end of one link, before they are sent: each device of a gateway one
EXCHANGE_BYTES_MAX = 16 * MIB  # the same in bytes: a desired state has 1 KiB
EXCHANGE_OWN_SHARE = 16  # what is for the neighbour itself may only use this part: it may be a hostile device
REPLAY_WINDOW = 1_024  # counters of one sender below the highest that may come: 128 bytes in a heartbeat
OUTBOX_NODE_ENVELOPES_MAX = 64  # said to one device and not opened by it: a state, a certificate, invitations
OUTBOX_NODE_BYTES_MAX = 1 * MIB  # the same in bytes: two of the largest
OUTBOX_BYTES_MAX = 128 * MIB  # said to the whole fleet and not opened: 1 KiB to each of 100,000 at once
OUTBOX_AGAIN_S = 60.0  # until what a device still has not opened is sent to it again over the same way
RECEIPT_PATIENCE_S = 30.0  # for a gateway's next receipt: 240 KiB at the slowest, and its disk
POST_ENVELOPES_MAX = 256  # of a node itself that nobody answers for yet; beyond it they are not sent
MAILBOX_LOOK_S = 5.0  # how often what was refused, stuck or has expired is looked at
CALL_AGAIN_S_MAX = 5.0  # between two attempts to dial a gateway below: it is back within 10 s of its return
CALL_RESERVE_S = 2.0  # a gateway below that somebody else carries is left to them, and looked at this often
GATEWAYS_IN_A_ROW_MAX = 8  # between a device and the admin server; three are a deep network
NODES_CARRIED_MAX = 20_000  # by one gateway: as many as these machines give a process file descriptors
NODES_BELOW_MAX = 250_000  # that a node knows the way to: the largest fleet twice, while all of it moves
ATTACHED_MAX = 8_192  # nodes in one frame: 350 KB

# Swarm -------------------------------------------------------------------------------------------
PEERS_PER_TORRENT_MAX = 64  # a site of 8 to 50 devices forms a full mesh; larger ones a random one
CANDIDATES_MAX = 512  # sources considered in one decision
ORIGIN_DEVICES_MAX = 4  # of a site whose point has no room: they share the WAN, a stuck one holds nobody up
TORRENTS_ACTIVE_MAX = 256  # artifacts that one node seeds at once
DETOUR_AFTER_S = 1.0  # without an answer from a swarm's port: a round trip over a satellite takes 0.6 s
DETOUR_LOOK_S = 30.0  # after which a swarm's port that has not answered is not waited for: four lost packets
DETOURS_LOOKED_AT_MAX = 16  # addresses of the one neighbour above: it has a few
ENDPOINTS_MAX = 8  # of one node's swarm, or of its observers: two families, a few interfaces
ENDPOINTS_DIALLED_MAX = 4  # of one source, one after the other
FAR_HOSTS_MAX = 1_024  # outside addresses that a gateway serves as the WAN; each is a rule of libtorrent
UNREACHED_MAX = 16  # sources of one artifact that a node says it cannot reach: each costs a meeting
PIECE_BYTES_MIN = 64 * KIB
PIECE_BYTES_MAX = 4 * MIB

# Meetings of devices behind NATs ------------------------------------------------------------------
CALLS_MAX = 3  # of one pair for one artifact, until content stays with the gateway
CALL_ANSWER_S = 4.0  # for a call: uTP repeats its first packet for 3.5 s
CALL_AGAIN_S = 5.0  # before the next one: what libtorrent tries over TCP when uTP fails has ended
CALL_RENEWED_S = 60.0  # after the last call: a pair that is apart again begins anew
CALL_ENDPOINTS_MAX = 2  # of one node that is called: one of each family
CALLED_BURST = 64  # calls that a node makes at once because it is told to: ten artifacts, six places each
CALLED_PER_S = 4.0  # ... and in the long run
SHOWN_BURST = 16  # times that a node shows itself to observers at once because it is told to
SHOWN_PER_S = 2.5  # ... and in the long run: a gateway asks twice a second at most
MEETING_GIVEN_UP_S = 600.0  # until a pair that could not meet is tried again: networks change
MEETINGS_MAX = 4_096  # pairs that one node has under way or remembers: 1,600 bytes each, with their nodes
PLACES_DISTRICT_MAX = 32  # places among which one chooses whom it meets: a decision costs their square
PLACES_MET_MAX = 6  # other places whose fetcher a place's fetcher exchanges content with
OBSERVED_FRESH_S = 1.0  # an outside endpoint is asked for again after: some mappings live for 4 s only
OBSERVE_WAIT_S = 1.0  # for the datagrams; four lost ones in a row are rarer than a blocked UDP
OBSERVE_GRACE_S = 0.2  # for the other observers, once one has seen a node
OBSERVES_MAX = 3  # before UDP counts as blocked
OBSERVER_BYTES_MAX = 512  # one datagram to an observer; with a token it has 133 bytes
OBSERVER_ID_S = 120.0  # that the number lasts which an observer gives out (BEP 15: two minutes)
OBSERVER_SOURCE_BURST = 400  # answers to one address at once: 50 devices behind one NAT, 8 each
OBSERVER_SOURCE_PER_S = 40  # ... and in the long run
OBSERVER_ADDRESSES_MAX = 8  # of a gateway at which it observes
OBSERVER_LOOK_S = 2.0  # how often it looks which of them it has: a node is asked three times, a second apart

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
COLLECTED_EVERY_OBJECTS = 5_000  # new ones, in a large process: some MB; looked at every 700, they cost 7 %
COLLECTED_BLOCKS_MAX = 500_000  # of memory in use, until which a look for unused cycles takes under 0.3 s

# Deltas -----------------------------------------------------------------------------------------------
DELTAS_MAX = 8  # of one release: a signed target of 350 bytes each
DELTA_BASES = 3  # releases before a new one that deltas are made from: who is farther behind takes it whole
DELTA_SIZE_PERCENT_MAX = 70  # of the whole artifact: below 30 % saved it is not worth its place on disks
DELTA_ARTIFACT_BYTES_MIN = 64 * KIB  # below, a process that applies a delta takes longer than the bytes
DELTA_UNPACKED_BYTES_MAX = 256 * MIB  # each of the two contents, which are in memory together
DELTA_WINDOW_LOG_MAX = 29  # a window that reaches over both: 512 MiB
DELTA_PATIENCE_S = 60.0  # without a byte of a delta, after which the whole artifact is fetched
DELTA_WORK_S = 900  # for applying one: packing 256 MiB again as xz takes two minutes on a slow core

# Mirrors ----------------------------------------------------------------------------------------------
MIRRORS_MAX = 32  # of one release: a vendor's dozen and the organisation's own
MIRROR_RANGE_BYTES_MAX = 4 * MIB  # in one request: the largest piece; 64 of the smallest
MIRROR_REQUESTS_MAX = 8  # under way for one artifact: at 100 ms and 4 MiB enough for a gigabit
MIRROR_REQUESTS_EACH_MAX = 4  # of them from one mirror: what vendors' servers take from one address
MIRROR_REDIRECTS_MAX = 5  # of one request: from a name to a region to a cache takes three
MIRROR_ANSWER_S = 15.0  # from the request to the end of the headers, each hop
MIRROR_STALL_S = 15.0  # as long, bytes that come slower than the next line are waited for
MIRROR_RATE_MIN_BYTES_PER_S = 1 * KIB  # a range of the largest size takes an hour then: another mirror helps
MIRROR_BACKOFF_S_MAX = 300.0  # after its eighth failure in a row; the first costs a second
RETRY_AFTER_S_MAX = 3_600.0  # a mirror that wants more is asked once an hour
MIRROR_PATIENCE_S = 20.0  # at least, while another reader's part does not move: it may only have begun
MIRROR_READER_RATE_BYTES_PER_S = 64 * KIB  # ... and as long as a piece takes at this rate: a minute for 4 MiB
MIRROR_UNVERIFIED_BYTES_MAX = 64 * MIB  # handed to libtorrent and not verified yet: a disk that is behind
MIRROR_TARGETS_MAX = 64  # that one task names: with a pattern each, 64 vendors
MIRROR_REFUSED_KEPT = 8  # pieces of several mirrors kept to tell who lied, of 4 MiB each at most

# Tasks of nodes, in general --------------------------------------------------------------------------
WORK_BYTES_MAX = 64 * KIB  # what one assignment says is to be done: a few hundred hosts by name
ASSIGNMENTS_MAX = 32  # of one node at once; more wait until one has ended
ASSIGNMENTS_BYTES_MAX = 256 * KIB  # of their work together: half of the desired state that carries them
TASK_RUNS_ACTIVE_MAX = 4  # that one node does at the same time: they share its line and its processor
TASK_BEGUN_MAX = 8  # times that one run is begun by a program that ends each time: it is what ends it
TASKS_JOURNAL_BYTES_MAX = 48 * MIB  # what one node repeats, each as large as an envelope
TASK_RUN_S_MAX = 24 * 3600  # one run: what takes longer hangs
TASK_STEP_CHARS_MAX = 200  # what a run does right now, one line
TASK_DETAIL_CHARS_MAX = 500  # what came of one item: a sentence with a name and some addresses
TASK_FIGURES_MAX = 32  # what one run counts
TASK_ITEMS_AT_ONCE = 128  # in one message, of 1 KiB each at most: a quarter of an envelope
TASK_UNCONFIRMED_MAX = 64  # messages that one node repeats: 8,192 items; beyond them its runs wait
TASK_PROGRESS_EVERY_S = 1.0  # as often as anybody looks
TASK_UNCONFIRMED_AGAIN_S = 60.0  # until what is not confirmed is said again over the same link
TASK_WINDOW_S_MAX = 7 * 24 * 3600  # in which a node begins a run: as long as it has its certificate
SCHEDULE_CHARS_MAX = 128  # a cron line
SECRETS_BYTES_MAX = 15 * KIB  # that a run needs: a private key of RSA has 3.4 KiB, twice in two forms
SECRETS_BOX_BYTES_MAX = 16 * KIB  # the same, sealed
SECRETS_KEPT_MAX = 1_024  # boxes at the admin server: 16 MiB of memory, or four tasks for 256 nodes
SECRETS_LIFE_S = 3_600  # until a node must have asked for them; nobody should have to give them twice a day
TASK_ASK_AGAIN_S = 10.0  # until a run asks the admin server again, where no answer has come
TASKS_MAX = 1_000  # that operators have made and not removed
TASK_NODES_MAX = 256  # that one task is for
TASK_RUNS_KEPT = 50  # of one task, the newest
TASK_ITEMS_KEPT_MAX = 70_000  # of one run on one node: each address of the largest range that can be polled

# The admin server's state ---------------------------------------------------------------------------
REVOKED_NAMED_MAX = 5_000  # to one point: those of one certificate life, 34 bytes each in a message
CLONE_SIGHTINGS_MAX = 100  # of each device, the newest; a clone tries again every minute
CERTIFICATES_KEPT_S = 30 * 24 * 3600  # after they expired, for whoever looks into an incident
STORE_TRIES_MAX = 12  # of one transaction, while those of other admin servers are first
REFUSALS_KEPT_MAX = 100_000  # the newest: one bad release on every device of a large fleet
AUDIT_KEPT_MAX = 1_000_000  # the newest: years of daily work, some 200 MB

# The admin server's HTTP API ------------------------------------------------------------------------
API_BODY_BYTES_MAX = 1 * MIB  # one JSON request of an operator
PUBLICATION_BYTES_MAX = 96 * MIB  # a whole metadata bundle and torrents, in base64
API_SILENCE_S = 60.0  # an upload or a body of which nothing comes for so long has been given up
API_ROWS_MAX = 1_000  # rows of a log in one answer
DISK_RESERVE_BYTES = 64 * MIB  # an upload leaves this much for the database and the metadata
PROFILE_BYTES_MAX = 64 * KIB  # an operator's profile, a token file

# Installing the agent on other machines ----------------------------------------------------------
INSTALL_HOSTS_MAX = 256  # of one run; each is an item that people look at
INSTALL_CONFIG_BYTES_MAX = 8 * KIB  # of the new agents, within what an assignment takes; ours has 1 KiB
INSTALL_PARALLEL_MAX = 32  # hosts worked on at once: as many connections, and as many commands' output
INSTALL_OUTPUT_BYTES_MAX = 64 * KIB  # what one command on such a machine may say; ours say a line
INSTALL_FRAME_BYTES_MAX = 2 * MIB  # one message to or from the worker: an enrolment bundle in base64
INSTALL_CHUNK_BYTES = 64 * KIB  # of the agent's file, read and sent at once
INSTALL_WORKERS_MAX = 8  # how often a worker that ended is replaced in one run
KNOWN_HOSTS_BYTES_MAX = 4 * MIB  # the keys of a large fleet, at the operator's
NODES_AWAITED_MAX = 4_096  # new devices that the admin server remembers are waited for: 16 large runs
AGENT_BYTES_MAX = 256 * MIB  # the agent as one file has 30 MB

# Agents that update themselves ------------------------------------------------------------------------
TRIAL_STARTS_MAX = 3  # how often a new version may end before it is heard of: a defect repeats
TRIALS_MAX = 2  # how often one that was not heard of in its time is tried: the network may have been away
TRIAL_PAUSE_S_MAX = 5  # between two starts of one that ends; less where its time is short
TRIAL_REACH_S = 30.0  # the version before has the admin server's answer within this, or nothing is begun
TRIAL_FILE_BYTES_MAX = 16 * KIB  # a few lines: two paths and four numbers
TRIAL_PROBE_S = 60.0  # a new version says its number: the file unpacks itself, on a busy machine
