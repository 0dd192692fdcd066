//! `seed keygen`: makes keys before anything runs, and says where they belong.

use super::CliError;
use super::args::KeygenArgs;
use super::config;
use super::query::print;
use super::settings::seat;
use crate::runtime::cluster_key;
use crate::runtime::files::identity_of;

/// Makes a cluster key, or the identity of a seed.
///
/// # Errors
/// When the file or directory cannot be made, or the flags name no seed.
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
    let own = seat(&args.config, &seeds, (args.id.unwrap_or_default(), args.ip, args.port))?;
    let keys = identity_of(&args.data, "seed", own.endpoint.port())?;
    print(&format!("{} {}\n", own.endpoint, keys.public()))
}
