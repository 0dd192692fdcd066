//! Which metrics there are: one row each, with where in a node's status its value is.
//!
//! A new number of a service becomes a metric by a row here and a row in `docs/METRICS.md`. What a
//! node's status does not have (a peer's numbers at a seed) is left out of its metrics. Numbers
//! that grow with the fleet in number, such as one a neighbor, are counted, never listed.

/// One metric.
#[derive(Debug)]
pub struct Row {
    /// Its name without prefix, and without the `_total` of counters.
    pub name: &'static str,
    /// What may be done with it.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// The one label that tells its values apart, if there are several.
    pub label: Option<&'static str>,
    /// Where its values are: the label's value, and the path in the status. An object at the path
    /// has the label's values as its keys.
    pub sources: &'static [(&'static str, &'static str)],
    /// What a value is divided by.
    pub divisor: f64,
}

/// What may be done with a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, and starts at zero with the process.
    Counter,
    /// It rises and falls.
    Gauge,
    /// A distribution, as [`crate::protocol::histogram::Histogram`] shows itself.
    Histogram,
}

const fn row(
    name: &'static str,
    kind: Kind,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Row {
    Row { name, kind, help, label: None, sources, divisor: 1.0 }
}

const fn counter(
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Row {
    row(name, Kind::Counter, sources, help)
}

const fn gauge(
    name: &'static str,
    sources: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Row {
    row(name, Kind::Gauge, sources, help)
}

impl Row {
    const fn by(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    const fn per(mut self, divisor: f64) -> Self {
        self.divisor = divisor;
        self
    }
}

/// All metrics but the build's, in the order in which they are shown.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // What every node has.
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
        "What others were refused, by cause; a cause appears with its first refusal").by("cause"),
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
    // What seeds and peers have in different forms.
    gauge("connected_peers", &[("", "neighbors"), ("", "members_linked")],
        "Neighbors of a peer; members that are linked with a seed"),
    gauge("connected_seeds", &[("", "seeds"), ("", "seeds_connected")],
        "Seeds that a peer is linked with; seeds in a seed's reach, itself included"),
    // A peer's.
    gauge("members_known", &[("", "members_known")], "Members that a peer knows beside itself"),
    gauge("suspects", &[("", "suspects")], "Members that a peer suspects to be dead"),
    counter("gossip_made", &[("", "gossip_made")], "Gossip messages that a peer made"),
    gauge("seen_messages", &[("", "gossip_held")],
        "Gossip messages that a peer remembers, so that none is taken for new twice"),
    counter("gossip_duplicates", &[("", "gossip_duplicates")],
        "Gossip messages that came again and were dropped"),
    // A seed's.
    gauge("ready", &[("", "ready")], "Whether a seed votes"),
    gauge("seeds_configured", &[("", "seeds_configured")], "Seeds in a seed's config.txt"),
    gauge("members", &[("", "members")], "Members in a seed's registry"),
    gauge("proposals_open", &[("admission", "admissions_open"), ("removal", "removals_open")],
        "Proposals that a seed has not seen decided").by("kind"),
    // HTTP itself.
    counter("http_connections", &[("", "http.connections")], "Connections that spoke HTTP"),
    counter("http_requests", &[("", "http.requests")], "Requests whose head was understood"),
    counter("http_responses", &[("", "http.answers")], "Answers by status").by("code"),
    counter("http_connections_refused", &[
        ("busy", "http.refused_busy"), ("elsewhere", "http.refused_access"),
    ], "Connections refused for their number, and requests for where they came from").by("cause"),
    counter("http_connections_idle", &[("", "http.closed_idle")],
        "Connections closed because nothing more was asked"),
    counter("http_write_failures", &[("", "http.write_failed")], "Answers that were not taken"),
    // The process.
    counter("process_cpu_seconds", &[("", "process.cpu_ms")],
        "Processor time of the process, user and system").per(1_000.0),
    gauge("process_resident_memory_bytes", &[("", "process.resident_bytes")], "Resident memory"),
    gauge("process_threads", &[("", "process.threads")], "Threads"),
    gauge("process_open_fds", &[("", "process.open_fds")], "Open file descriptors"),
];
