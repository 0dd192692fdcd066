//! Settings of a chat: the checked flags, with the addresses of this member and of those it calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{ChatArgs, MemberAddr};
use crate::cli::CliError;
use crate::machine::chat::Config;
use crate::model::Endpoint;
use crate::network::chat::knows_its_group;
use crate::proto::chat::entry::MemberId;
use crate::proto::sealed::ClusterKeys;
use crate::runtime::chat::GroupBootstrap;
use crate::runtime::cluster_key;

/// Shortest heartbeat in ms: below it the group does little else.
const HEARTBEAT_MS_MIN: u128 = 10;

/// Settings with which a chat is started.
pub(super) struct Settings {
    /// Id of this member.
    pub(super) me: MemberId,
    /// Listen address; `None` if the member of a fleet listens.
    pub(super) listen: Option<SocketAddr>,
    /// Rule for founding a group where none is known.
    pub(super) bootstrap: GroupBootstrap,
    /// Address at which other members call this one.
    pub(super) at: Endpoint,
    /// Addresses at which members of the group may be.
    pub(super) seeds: Vec<(Option<MemberId>, Endpoint)>,
    /// Limits and settings of the machine.
    pub(super) config: Config,
    /// Cluster keys that a link needs.
    pub(super) cluster_keys: Option<Arc<ClusterKeys>>,
    /// Directory of the key and the control socket.
    pub(super) dir: PathBuf,
    /// Notes about the flags, for people.
    pub(super) notes: Vec<String>,
}

impl Settings {
    /// Checks the flags, in the fleet of these seeds, if there is one.
    ///
    /// # Errors
    /// Fails if they cannot be used; the text says what to type instead.
    pub(super) fn new(args: &ChatArgs, fleet: &[Endpoint]) -> Result<Self, CliError> {
        let missing = || CliError::Usage("a chat needs --id and --port".to_owned());
        let me = MemberId(args.id.ok_or_else(missing)?);
        let port = args.port.ok_or_else(missing)?;
        let mut notes = Vec::new();
        let mut seeds = found_seeds(args, me, &mut notes)?;
        let ways: Vec<_> = seeds.iter().map(|(_, seed)| seed).chain(fleet).copied().collect();
        let at = Endpoint::new(advertised(args, &ways), port);
        let mut is_other = |seed: &(Option<MemberId>, Endpoint)| {
            let is_me = seed.1 == at || seed.0 == Some(me);
            if is_me {
                notes.push(format!("{} is this member itself: --seed ignores it", seed.1));
            }
            !is_me
        };
        let were_given = !seeds.is_empty();
        seeds.retain(&mut is_other);
        if were_given && seeds.is_empty() {
            return Err(CliError::Usage(format!(
                "every --seed is {me} itself; name another member, or leave --seed out to found a \
                 group"
            )));
        }
        if !at.is_callable() {
            return Err(CliError::Usage(format!(
                "others cannot call {}; name an address of this machine with --advertise",
                at.ip()
            )));
        }
        let cluster_keys = args.cluster_key.as_deref().map(cluster_key::read).transpose()?;
        Ok(Self {
            me,
            listen: Some(SocketAddr::new(args.host, port)),
            bootstrap: if args.seed.is_empty() {
                GroupBootstrap::IfNew
            } else {
                GroupBootstrap::Never
            },
            at,
            seeds,
            config: config(args)?,
            cluster_keys,
            dir: args.data.join(format!("chat-{}", me.0)),
            notes,
        })
    }
}

/// The addresses of the members that `--seed` names. A name that is not known just now is noted:
/// the others will do, and a member that knows its group from its log needs none.
fn found_seeds(
    args: &ChatArgs,
    me: MemberId,
    notes: &mut Vec<String>,
) -> Result<Vec<(Option<MemberId>, Endpoint)>, CliError> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for place in &args.seed {
        match resolve(place) {
            Ok(at) => found.push((place.id, at)),
            Err(why) => missing.push(format!("--seed {place}: {why}")),
        }
    }
    let needs_none = || knows_its_group(&args.log_dir, me);
    match missing.first() {
        Some(first) if found.is_empty() && !needs_none() => Err(CliError::Usage(format!(
            "{first}; name an address, as in 1:127.0.0.1:6001, or a member whose name is known"
        ))),
        _ => {
            notes.extend(missing.into_iter().map(|it| format!("{it}; goes on without it")));
            Ok(found)
        }
    }
}

fn config(args: &ChatArgs) -> Result<Config, CliError> {
    let default = Config::default();
    let most = default.message_max;
    let message_max = usize::try_from(args.message_max.0).unwrap_or(usize::MAX);
    if message_max > most {
        return Err(CliError::Usage(format!(
            "--message-max is at most {most} bytes (16K), so that a line of the protocol has room"
        )));
    }
    let (heartbeat, leader_timeout) = (args.heartbeat.0, args.leader_timeout.0);
    if heartbeat.as_millis() < HEARTBEAT_MS_MIN {
        return Err(CliError::Usage(format!("--heartbeat is at least {HEARTBEAT_MS_MIN}ms")));
    }
    if leader_timeout < heartbeat * 2 {
        return Err(CliError::Usage(format!(
            "--leader-timeout {} must be at least twice --heartbeat {}, or a single late heartbeat \
             ends a reign; lower --heartbeat too",
            args.leader_timeout, args.heartbeat
        )));
    }
    let takeover = !args.no_takeover;
    Ok(Config { heartbeat, leader_timeout, takeover, message_max, ..default })
}

fn resolve(place: &MemberAddr) -> Result<Endpoint, String> {
    let found = format!("{}:{}", place.host, place.port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    // Groups listen on IPv4 by default.
    let addr = found.iter().find(|it| it.is_ipv4()).or(found.first());
    addr.map(|addr| Endpoint::from(*addr)).ok_or_else(|| "it has no address".to_owned())
}

/// Address at which other members call this one: the flag, the listen address, or that of the way
/// to a seed.
fn advertised(args: &ChatArgs, seeds: &[Endpoint]) -> IpAddr {
    if let Some(ip) = args.advertise {
        return ip;
    }
    if !args.host.is_unspecified() {
        return args.host;
    }
    let way = |to: SocketAddr| {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        // Nothing is sent: the system only chooses the way.
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    };
    // For a founder the way to other members is unknown: that of the default route, if there is
    // one.
    let far = SocketAddr::from(([192, 0, 2, 1], 9));
    let mut ways = seeds.iter().map(|seed| seed.socket_addr()).chain([far]);
    ways.find_map(way).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn settings(line: &str) -> Result<Settings, String> {
        let command = <ChatArgs as clap::Args>::augment_args(Command::new("chat"));
        let words = ["chat"].into_iter().chain(line.split_whitespace());
        let matches = command.try_get_matches_from(words).unwrap();
        Settings::new(&ChatArgs::from_arg_matches(&matches).unwrap(), &[]).map_err(|error| {
            assert_eq!(error.code(), 2, "{error}");
            error.to_string()
        })
    }

    #[test]
    fn the_way_to_a_seed_says_where_others_call() {
        let plan =
            settings("--id 2 --port 6002 --seed 1:127.0.0.1:6001 --seed localhost:6003").unwrap();
        assert_eq!(plan.at.to_string(), "127.0.0.1:6002");
        assert_eq!(plan.listen.unwrap().to_string(), "0.0.0.0:6002");
        let seeds: Vec<_> = plan.seeds.iter().map(|(id, at)| (*id, at.to_string())).collect();
        assert_eq!(
            seeds,
            [(Some(MemberId(1)), "127.0.0.1:6001".into()), (None, "127.0.0.1:6003".into())]
        );
        let advertised = self::settings("--id 2 --port 6002 --advertise 10.1.2.3").unwrap();
        assert_eq!(advertised.at.to_string(), "10.1.2.3:6002");
        let bound = self::settings("--id 2 --port 6002 --host 127.0.0.9").unwrap();
        assert_eq!(bound.at.to_string(), "127.0.0.9:6002");
    }

    #[test]
    fn a_seed_that_is_this_member_itself_is_ignored_and_no_group_is_founded_by_it() {
        let seeds = "--seed 2:127.0.0.1:6002 --seed 1:127.0.0.1:6001";
        let plan = settings(&format!("--id 2 --port 6002 {seeds}")).unwrap();
        assert_eq!((plan.seeds.len(), plan.notes.len()), (1, 1));
        let text = self::settings("--id 2 --port 6002 --seed 127.0.0.1:6002").err().unwrap();
        assert!(text.contains("itself"), "{text}");
    }

    #[test]
    fn flags_that_cannot_work_are_refused_with_what_can() {
        let cases = [
            ("--message-max 17K", "at most 16384 bytes"),
            ("--heartbeat 1ms", "at least 10ms"),
            ("--leader-timeout 1s", "at least twice"),
            ("--seed no.such.host.invalid:1", "name an address"),
            ("--advertise 0.0.0.0", "--advertise"),
        ];
        for (flags, expected) in cases {
            let text = settings(&format!("--id 1 --port 6001 {flags}")).err().unwrap();
            assert!(text.contains(expected), "{flags}: {text}");
        }
    }
}
