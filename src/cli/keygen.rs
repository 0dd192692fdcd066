//! `seed keygen`: makes keys before anything runs, and prints where they belong.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::args::parse_number;
use super::output::print;
use super::{CliError, config};
use crate::runtime::cluster_key;
use crate::runtime::files::identity_of;

/// Arguments of `seed keygen`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["id", "cluster_key"]))]
pub struct KeygenArgs {
    /// Make the identity of seed N, if it has none, and print the line that pins it in config.txt
    #[arg(long, value_name = "N", value_parser = parse_number::<u16>)]
    pub id: Option<u16>,
    /// The seed's TCP port, which must be the one in config.txt [default: that one]
    #[arg(long, value_name = "P", requires = "id",
        value_parser = parse_number::<u16>)]
    pub port: Option<u16>,
    /// The seed's address, which must be the one in config.txt [default: that one]
    #[arg(long, requires = "id")]
    pub ip: Option<IpAddr>,
    /// The file that lists the seeds
    #[arg(long, value_name = "FILE", default_value = "config.txt")]
    pub config: PathBuf,
    /// Folder in which nodes keep their keys and journals, each in a directory of its own
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Make a new cluster key in this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cluster_key: Option<PathBuf>,
}

/// Makes a cluster key, or the identity of a seed.
///
/// # Errors
/// Fails if the file or directory cannot be made, or the flags name no seed.
pub fn run(args: &KeygenArgs) -> Result<(), CliError> {
    if let Some(file) = &args.cluster_key {
        cluster_key::create(file)?;
        let file = file.display();
        return print(&format!(
            "made a cluster key: {file}; copy it to every machine of the fleet, in secret, and \
             start every node with --cluster-key {file}\n"
        ));
    }
    let seeds = config::read(&args.config)?;
    let own = config::seat(&args.config, &seeds, (args.id.unwrap_or_default(), args.ip, args.port))
        .map_err(CliError::Usage)?;
    let keys = identity_of(&args.data, "seed", own.endpoint.port())?;
    print(&format!("{} {}\n", own.endpoint, keys.public()))?;
    // Not on standard output, which is the line alone: a program can put it into the file.
    let (id, file) = (own.id, args.config.display());
    let hint = format!("put this in the place of seed {id}'s line in {file}, on every machine");
    // The hint may be lost: the line has been printed.
    let _ = writeln!(io::stderr().lock(), "{hint}");
    Ok(())
}
