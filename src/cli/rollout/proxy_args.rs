//! Flags of the data plane as a proxy.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::cli::CliError;
use crate::cli::size::Size;
use crate::cli::span::Span;
use crate::runtime::dataplane::{
    AccessLogOptions, DataPlaneLimits, OwnPaths, ProxyOptions, TlsFiles,
};

/// Flags of the data plane as a proxy.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Data plane")]
pub struct ProxyArgs {
    /// Bytes of a request's body at most, as in 10M [default: any number]
    #[arg(long, value_name = "SIZE", requires = "id")]
    pub body_max: Option<Size>,
    /// Certificate of the data plane, in PEM with those of its authorities; clients then come by
    /// https:// and HTTP/2 or HTTP/1.1; read again on SIGHUP [default: none, http://]
    #[arg(long, value_name = "FILE", requires_all = ["id", "tls_key"])]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, in PEM [default: none]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificate of an authority whose https:// servers are trusted, in PEM, beside those that
    /// this machine trusts; once for each [default: none]
    #[arg(long, value_name = "FILE", requires = "id")]
    pub upstream_ca: Vec<PathBuf>,
    /// Network of proxies in front of this node whose X-Forwarded-For and Forwarded are believed;
    /// once for each; 192.0.2.1/32, which nobody has, trusts none [default: 127.0.0.0/8 and ::1]
    #[arg(long, value_name = "CIDR", requires = "id")]
    pub trust_forwarded: Vec<IpNet>,
    /// Paths at which the node itself answers: document is /routing, /health and /metrics as well
    /// as /-/folkmoot/…; prefix is only the latter
    #[arg(long, value_name = "PATHS", value_enum, default_value = "document", requires = "id")]
    pub own_paths: OwnPathsArg,
    /// Pass headers on whose names have underscores, which many servers take for dashes
    #[arg(long, requires = "id")]
    pub keep_underscores: bool,
    /// Path that a server answers with 2xx when it is ready, as in /healthz [default: none, a
    /// server is ready when it can be called]
    #[arg(long, value_name = "PATH", requires = "id", value_parser = path)]
    pub ready_path: Option<String>,
    /// File that a line of JSON is appended to for each request; opened anew on SIGHUP [default:
    /// none]
    #[arg(long, value_name = "FILE", requires = "id")]
    pub access_log: Option<PathBuf>,
    /// Share of the requests that have a line in --access-log, drawn by chance
    #[arg(long, value_name = "PERCENT", default_value = "100%", requires = "access_log",
        value_parser = percent)]
    pub access_sample: u32,
    /// Time for a connection to a server: its name, all its addresses, and TLS
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "id")]
    pub connect_timeout: Span,
    /// Time for the head of an answer, from the whole head of the request on
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "id")]
    pub first_byte_timeout: Span,
    /// Time between two parts of a body, in either direction
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "id")]
    pub idle_timeout: Span,
    /// Time for a whole answer [default: any, as streams need]
    #[arg(long, value_name = "TIME", requires = "id")]
    pub answer_timeout: Option<Span>,
    /// Requests at once to one version; those above it get 503, and other versions are not touched
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "id",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub version_max: u32,
    /// Connections of clients at once; those above it get 503
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "id",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients_max: u32,
    /// Time for requests to end when the node is stopped
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "id")]
    pub grace: Span,
}

/// Value of --own-paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OwnPathsArg {
    /// Those of the document, and those of the prefix.
    Document,
    /// Those of the prefix alone.
    Prefix,
}

fn path(text: &str) -> Result<String, &'static str> {
    let is_path = text.starts_with('/') && text.bytes().all(|it| it.is_ascii_graphic());
    is_path.then(|| text.to_owned()).ok_or("a path begins with a slash, as in /healthz")
}

/// Reads a share such as 0.5% as basis points.
fn percent(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "a share is 0% to 100%, with at most two decimal places";
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|c| c.is_ascii_digit());
    if !is_digits(whole) || !is_digits(part) || part.len() > 2 {
        return Err(WRONG);
    }
    let part: u32 = format!("{part:0<2}").parse().map_err(|_| WRONG)?;
    let whole: u32 = whole.parse().ok().filter(|it| *it <= 100).ok_or(WRONG)?;
    Some(whole * 100 + part).filter(|it| *it <= 10_000).ok_or(WRONG)
}

impl ProxyArgs {
    /// Limits of clients and servers.
    pub(super) fn limits(&self) -> DataPlaneLimits {
        let connections = self.clients_max as usize;
        let default = DataPlaneLimits::default();
        DataPlaneLimits {
            connections,
            connections_of_one: (connections / 4 * 3).max(1),
            requests_of_version: self.version_max as usize,
            body_bytes: self.body_max.map_or(0, |it| it.0),
            connect: self.connect_timeout.0,
            first_byte: self.first_byte_timeout.0,
            body_idle: self.idle_timeout.0,
            write: self.idle_timeout.0,
            answer: self.answer_timeout.map_or(Duration::ZERO, |it| it.0),
            grace: self.grace.0,
            ..default
        }
    }

    /// Settings of the data plane as a proxy.
    ///
    /// # Errors
    /// Fails if only one of the certificate and its key is named, which the flags exclude.
    pub(super) fn options(&self) -> Result<ProxyOptions, CliError> {
        let default = ProxyOptions::default();
        let tls = match (&self.tls_cert, &self.tls_key) {
            (None, None) => None,
            (Some(certificates), Some(key)) => {
                Some(TlsFiles { certificates: certificates.clone(), key: key.clone() })
            }
            _ => return Err(CliError::Usage("name --tls-cert and --tls-key, both".to_owned())),
        };
        Ok(ProxyOptions {
            tls,
            authorities: self.upstream_ca.clone(),
            trusted: match &self.trust_forwarded[..] {
                [] => default.trusted,
                own => own.to_vec(),
            },
            own_paths: match self.own_paths {
                OwnPathsArg::Document => OwnPaths::Document,
                OwnPathsArg::Prefix => OwnPaths::Prefix,
            },
            keeps_underscores: self.keep_underscores,
            ready_path: self.ready_path.clone(),
            access_log: self
                .access_log
                .clone()
                .map(|file| AccessLogOptions { file, share: self.access_sample }),
        })
    }
}
