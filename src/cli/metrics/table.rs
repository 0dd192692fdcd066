//! Table of the metrics: one row each, with the path of its value in a node's status.
//!
//! A new number of a service becomes a metric by a row here and a row in `docs/METRICS.md`. A
//! metric that a node's status does not have (a peer's numbers at a seed) is left out. Numbers that
//! grow with the fleet in number, such as one a neighbor, are counted, never listed.

use crate::machine::session::RejectReason;

/// Row of one metric.
#[derive(Debug)]
pub struct MetricRow {
    /// Name without prefix, and without the `_total` of counters.
    pub name: &'static str,
    /// Kind of the metric.
    pub kind: MetricKind,
    /// Help text of the metric.
    pub help: &'static str,
    /// Name of the one label that distinguishes its values, if there are several.
    pub label: Option<&'static str>,
    /// Sources of its values: the label's value, and the path in the status. An object at the path
    /// has the label's values as its keys.
    pub sources: &'static [(&'static str, &'static str)],
    /// Values of the label that are shown from the start, though the object has them only once
    /// there is something to count.
    pub from_start: &'static [&'static str],
    /// Number that a value is divided by.
    pub divisor: f64,
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// The value only rises, and starts at zero with the process.
    Counter,
    /// The value rises and falls.
    Gauge,
    /// A distribution, as [`crate::machine::histogram::Histogram`] shows itself.
    Histogram,
}

const fn row(
    name: &'static str,
    kind: MetricKind,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> MetricRow {
    MetricRow { name, kind, help, label: None, sources, from_start: &[], divisor: 1.0 }
}

const fn counter(
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> MetricRow {
    row(name, MetricKind::Counter, sources, help)
}

const fn histogram(
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> MetricRow {
    row(name, MetricKind::Histogram, sources, help)
}

const fn gauge(
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> MetricRow {
    row(name, MetricKind::Gauge, sources, help)
}

impl MetricRow {
    const fn by(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    const fn always(mut self, values: &'static [&'static str]) -> Self {
        self.from_start = values;
        self
    }

    const fn per(mut self, divisor: f64) -> Self {
        self.divisor = divisor;
        self
    }
}

/// Causes of refusals, as a status names them.
const CAUSES: [&str; RejectReason::ALL.len()] = {
    let mut names = [""; RejectReason::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = RejectReason::ALL[at].as_str();
        at += 1;
    }
    names
};

/// All metrics but the build's, in the order in which they are shown.
#[rustfmt::skip]
pub const ROWS: &[MetricRow] = &[
    // Metrics of every node.
    gauge("healthy", &[("", "healthy")],
        "Whether the node does its part: a peer is a member, a seed votes and has a quorum"),
    gauge("uptime_seconds", &[("", "uptime_ms")], "Seconds since the process started").per(1_000.0),
    counter("messages_sent", &[("", "counters.lines_out")], "Messages written to links"),
    counter("messages_received", &[("", "counters.lines_in")],
        "Well-formed messages read from links"),
    counter("messages_dropped", &[
        ("garbled", "counters.garbled"), ("oversized", "counters.oversized"),
        ("link_lost", "counters.lines_lost"),
    ], "Messages that were read and were none, or that never left because of their size or because \
        their link ended").by("reason"),
    counter("bytes_sent", &[("", "counters.bytes_out")], "Bytes written to links"),
    counter("bytes_received", &[("", "counters.bytes_in")], "Bytes read from links"),
    counter("refusals", &[("", "refused")],
        "What others were refused, by cause").by("cause").always(&CAUSES),
    counter("links_opened", &[
        ("accepted", "counters.links_accepted"), ("dialed", "counters.links_dialed"),
    ], "Connections that became links").by("direction"),
    counter("links_closed", &[("", "counters.links_closed")], "Links that ended"),
    counter("dials_failed", &[("", "counters.dials_failed")], "Attempts to connect that failed"),
    counter("connections_refused", &[
        ("accept_error", "counters.accept_errors"),
        ("cluster_key_missing", "counters.refused_keyless"),
        ("cluster_key_unwanted", "counters.refused_key"),
        ("cluster_key_wrong", "counters.refused_wrong_key"),
        ("crowded", "counters.refused_crowded"),
        ("dialect", "counters.refused_dialect"), ("frame", "counters.refused_frame"),
        ("full", "counters.refused_full"), ("silent", "counters.refused_silent"),
        ("slow_reader", "counters.refused_slow"), ("too_long", "counters.refused_too_long"),
        ("truncated", "counters.refused_truncated"),
    ], "Connections and links that were refused or ended by this node, by cause").by("cause"),
    gauge("queued_messages", &[("", "queues.lines_waiting")],
        "Messages that wait to be written, on all links"),
    gauge("queued_bytes", &[("", "queues.bytes_waiting")], "Their bytes"),
    counter("events_dropped", &[("", "counters.events_dropped")],
        "Events that are missing from the log because it is written too slowly"),
    counter("journal_records", &[("", "counters.journal_records")],
        "Records written to the journal"),
    counter("journal_syncs", &[("", "counters.journal_syncs")], "Waits for the disk"),
    counter("journal_rewrites", &[("", "counters.journal_rewrites")],
        "Rewrites of the journal from a snapshot"),
    gauge("health_score", &[("", "health")], "Distrust of itself, 0 to 7: above 0 it is slow"),
    gauge("quorum", &[("", "quorum")], "Yes votes that decide"),
    // Metrics that seeds and peers have in different forms.
    gauge("connected_peers", &[("", "neighbors"), ("", "members_linked")],
        "Neighbors of a peer; members that are linked with a seed"),
    gauge("connected_seeds", &[("", "seeds"), ("", "seeds_connected")],
        "Seeds that a peer is linked with; seeds in a seed's reach, itself included"),
    // Metrics of a peer.
    gauge("members_known", &[("", "members_known")], "Members that a peer knows beside itself"),
    gauge("suspects", &[("", "suspects")], "Members that a peer suspects to be dead"),
    counter("gossip_made", &[("", "gossip_made")], "Gossip messages that a peer made"),
    gauge("seen_messages", &[
        ("broadcast", "network.broadcast.seen_messages"), ("gossip", "gossip_held"),
    ], "Messages that a peer remembers, so that none is taken for new twice").by("kind"),
    counter("gossip_duplicates", &[("", "gossip_duplicates")],
        "Gossip messages that came again and were dropped"),
    // The network layer of a peer.
    counter("broadcast_published", &[("", "network.broadcast.messages_published")],
        "Broadcast messages that were published here"),
    counter("broadcast_delayed", &[("", "network.broadcast.messages_delayed")],
        "Broadcast messages that waited here for nodes that do not keep up"),
    counter("broadcast_delivered", &[("", "network.broadcast.messages_delivered")],
        "Broadcast messages of others that were delivered here, each once"),
    counter("broadcast_messages_sent", &[("", "network.broadcast.messages_sent")],
        "Copies of broadcast messages sent to neighbors"),
    counter("broadcast_messages_received", &[("", "network.broadcast.messages_received")],
        "Copies of broadcast messages that neighbors sent"),
    counter("broadcast_messages_dropped", &[("", "network.broadcast.messages_dropped")],
        "What the broadcast dropped, by reason; duplicates are counted apart").by("reason"),
    counter("broadcast_duplicates", &[("", "network.broadcast.duplicates")],
        "Copies of broadcast messages that were here already"),
    counter("broadcast_repaired", &[("", "network.broadcast.repaired")],
        "Broadcast messages that came because they were asked for"),
    counter("broadcast_grafts", &[("", "network.broadcast.grafts")],
        "Links that this peer asked to be pushed to again"),
    counter("broadcast_prunes", &[("", "network.broadcast.prunes")],
        "Links on which this peer asked for announcements only"),
    counter("broadcast_announcements", &[("", "network.broadcast.announcements")],
        "Broadcast messages announced to neighbors instead of pushed"),
    counter("broadcast_bytes_sent", &[("", "network.broadcast.bytes_out")],
        "Bytes of broadcast data sent, parts of large messages included"),
    counter("broadcast_bytes_received", &[("", "network.broadcast.bytes_in")],
        "Bytes of broadcast data that came, parts of large messages included"),
    gauge("broadcast_held_messages", &[("", "network.broadcast.held_messages")],
        "Broadcast messages that are kept for those who missed them"),
    gauge("broadcast_held_bytes", &[("", "network.broadcast.held_bytes")],
        "Bytes of the broadcast messages that are kept"),
    gauge("broadcast_wanted_messages", &[("", "network.broadcast.wanted_messages")],
        "Broadcast messages that were announced here and have not come"),
    gauge("broadcast_pulls", &[("", "network.broadcast.pulls")],
        "Large broadcast messages that are coming in parts"),
    gauge("broadcast_links", &[
        ("eager", "network.broadcast.eager_links"),
        ("lazy", "network.broadcast.lazy_links"),
    ], "Links that broadcasts are pushed to, and links that they are announced to").by("kind"),
    histogram("broadcast_delivery_latency_seconds",
        &[("", "network.broadcast.delivery_latency_ms")],
        "Age of broadcast messages at their delivery here").per(1_000.0),
    histogram("broadcast_delivery_hops", &[("", "network.broadcast.delivery_hops")],
        "Links that broadcast messages had crossed at their delivery here"),
    counter("direct_sent", &[("", "network.direct.messages_sent")],
        "Direct messages that were to be sent from here"),
    counter("direct_acknowledged", &[("", "network.direct.acknowledged")],
        "Direct messages from here that were taken"),
    counter("direct_failed", &[
        ("cancelled", "network.direct.cancelled"),
        ("not_sent", "network.direct.not_sent"),
        ("refused", "network.direct.refused"),
        ("too_large", "network.direct.too_large"),
        ("unknown", "network.direct.unknown"),
        ("unreachable", "network.direct.unreachable"),
    ], "Direct messages from here that came to nothing, or of which nobody can say").by("kind"),
    counter("direct_retries", &[("", "network.direct.retries")],
        "Attempts to send a direct message after the first"),
    gauge("direct_open_messages", &[("", "network.direct.open")],
        "Direct messages on their way from here"),
    gauge("direct_open_bytes", &[("", "network.direct.open_bytes")],
        "Bytes of the direct messages on their way from here"),
    counter("direct_received", &[("", "network.direct.messages_received")],
        "Direct messages that came whole, each once"),
    gauge("direct_waiting", &[("", "network.direct.questions")],
        "Direct messages that wait to be taken by a program here"),
    counter("direct_lapsed", &[("", "network.direct.lapsed")],
        "Direct messages that no program here took in time"),
    counter("direct_duplicates", &[("", "network.direct.duplicates")],
        "Direct messages that came again and were shown to nobody"),
    counter("direct_busy", &[("", "network.direct.busy")],
        "Direct messages that came when there was no room"),
    gauge("direct_remembered", &[("", "network.direct.remembered")],
        "Direct messages whose fate is remembered, so that none is shown twice"),
    counter("direct_bytes_sent", &[("", "network.direct.bytes_sent")],
        "Bytes of direct messages sent, repetitions included"),
    counter("direct_bytes_received", &[("", "network.direct.bytes_received")],
        "Bytes of the direct messages that came"),
    gauge("direct_links", &[("", "network.direct.links")], "Links for direct messages alone"),
    gauge("contacts_watched", &[("", "network.contacts.watched")],
        "Peers whose reachability is watched"),
    gauge("contacts_linked", &[("", "network.contacts.connected_peers")],
        "Watched peers that there is a link with"),
    gauge("contacts_unreachable", &[("", "network.contacts.unreachable")],
        "Watched peers that cannot be reached"),
    counter("contacts_lost", &[("", "network.contacts.lost")],
        "Times that a watched peer became unreachable"),
    counter("contacts_regained", &[("", "network.contacts.regained")],
        "Times that a watched peer came back"),
    counter("contacts_calls", &[("", "network.contacts.calls")],
        "Connections made to find out whether a watched peer is there"),
    gauge("discovery_entries", &[("", "network.discovery.entries")],
        "Peers that were found, each proved at its endpoint"),
    gauge("discovery_lookups_open", &[("", "network.discovery.lookups_open")],
        "Look-ups under way or waiting"),
    counter("discovery_lookups", &[("", "network.discovery.lookups")], "Look-ups begun"),
    counter("discovery_questions", &[("", "network.discovery.asked")],
        "Questions that were put to others"),
    counter("discovery_questions_unanswered", &[("", "network.discovery.unanswered")],
        "Questions that nobody answered in time"),
    counter("discovery_answers", &[("", "network.discovery.answered")],
        "Questions of others that were answered"),
    counter("discovery_refused", &[("", "network.discovery.refused")],
        "Answers that were refused: unasked for, or too long"),
    counter("discovery_contacts_ignored", &[("", "network.discovery.ignored")],
        "Contacts in answers that cannot be called: this peer, seeds, odd addresses"),
    counter("discovery_contacts_false", &[("", "network.discovery.false_contacts")],
        "Contacts under whose endpoint another key answered"),
    histogram("discovery_lookup_hops", &[("", "network.discovery.lookup_hops")],
        "Hops to what look-ups ended with"),
    // The services inside a peer.
    gauge("chat_quorum", &[("", "chat.quorum")],
        "Whether a majority of the chat's members is in reach"),
    gauge("chat_members", &[("", "chat.members")], "Members of the chat's group"),
    gauge("chat_members_away", &[("", "chat.away")],
        "Members of the chat's group without a connection"),
    gauge("chat_term", &[("", "chat.term")], "Term of the chat's leader"),
    gauge("chat_entries", &[("final", "chat.final"), ("last", "chat.last")],
        "Number of the last final entry of the chat, and of the last one in the log").by("state"),
    gauge("chat_pending", &[("", "chat.pending")],
        "Texts that were sent by this member and are not final"),
    gauge("order_members", &[("", "order.members")], "Members of the order's group"),
    gauge("order_members_reached", &[("", "order.reached")],
        "Members of the order's group in reach that vote, this one included"),
    gauge("order_members_needed", &[("", "order.quorum")],
        "Members of the order's group that decide"),
    gauge("order_silent", &[("", "order.is_silent")],
        "Whether the order's member votes for nothing, because what it had signed is lost"),
    gauge("order_epoch", &[("", "order.epoch")], "Epoch of the order"),
    gauge("order_view", &[("", "order.view")], "View of the order in its epoch"),
    gauge("order_slots", &[("", "order.slots")], "Last final slot of the order"),
    gauge("order_places", &[("", "order.places")], "Last final place of the order"),
    gauge("order_pending", &[("", "order.pending")],
        "Entries that were proposed by this member and are not final"),
    gauge("order_evidence", &[("", "order.evidence")],
        "Pairs of statements by which a member of the order has shown that it lies"),
    counter("order_views", &[("", "order.views")], "Views of the order that began"),
    counter("order_suspicions", &[("", "order.suspicions")],
        "Wishes of members for another leader of the order, by cause").by("cause"),
    histogram("order_final_latency_seconds", &[("", "order.final_latency_ms")],
        "Time until a proposal of this member was final here").per(1_000.0),
    counter("order_halts", &[("", "order.halts")],
        "Times that too few members of the order were in reach"),
    counter("order_dropped", &[("", "order.dropped")],
        "Messages of members of the order that were not taken, by cause").by("cause"),
    gauge("rollout_nodes", &[("", "rollout.nodes")], "Nodes that take part in rollouts"),
    gauge("rollout_nodes_away", &[("", "rollout.away")],
        "Nodes that take part in rollouts, without a connection"),
    gauge("rollout_version", &[("", "rollout.version")],
        "Version of the committed state that is served"),
    counter("rollout_committed", &[("", "rollout.committed")],
        "Transactions committed by this process"),
    counter("rollout_aborted", &[("", "rollout.aborted")],
        "Transactions that this process saw aborted"),
    gauge("shares", &[
        ("own", "shares.own"), ("taken", "shares.taken"), ("known", "shares.known"),
    ], "Shares that a peer offers or fetches, takes by orders, and has heard of").by("kind"),
    counter("data_plane_requests", &[("", "rollout.requests")], "Requests whose head was read"),
    // Metrics of a seed.
    gauge("ready", &[("", "ready")], "Whether a seed votes"),
    gauge("seeds_configured", &[("", "seeds_configured")], "Seeds in a seed's config.txt"),
    gauge("members", &[("", "members")], "Members in a seed's registry"),
    gauge("proposals_open", &[("admission", "admissions_open"), ("removal", "removals_open")],
        "Proposals that a seed has not seen decided").by("kind"),
    // Metrics of HTTP itself.
    counter("http_connections", &[("", "http.connections")], "Connections that spoke HTTP"),
    counter("http_requests", &[("", "http.requests")], "Requests whose head was understood"),
    counter("http_responses", &[("", "http.answers")], "Answers by status").by("code"),
    counter("http_connections_refused", &[
        ("busy", "http.refused_busy"), ("elsewhere", "http.refused_access"),
    ], "Connections refused for their number, and requests for where they came from").by("cause"),
    counter("http_connections_idle", &[("", "http.closed_idle")],
        "Connections closed because nothing more was asked"),
    counter("http_write_failures", &[("", "http.write_failed")], "Answers that were not taken"),
    // Metrics of the process.
    counter("process_cpu_seconds", &[("", "process.cpu_ms")],
        "Processor time of the process, user and system").per(1_000.0),
    gauge("process_resident_memory_bytes", &[("", "process.resident_bytes")], "Resident memory"),
    gauge("process_threads", &[("", "process.threads")], "Threads"),
    gauge("process_open_fds", &[("", "process.open_fds")], "Open file descriptors"),
];
