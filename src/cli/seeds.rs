//! Seeds of a fleet that run now.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::config;
use super::error::CliError;
use crate::machine::quorum::QuorumRule;
use crate::model::Endpoint;
use crate::runtime::thread;

/// Time-out of a call to a seed.
const SEED_PATIENCE: Duration = Duration::from_millis(500);

/// Seeds of the fleet that `file` names, if enough of them run. Unless it `is_wanted`, a missing
/// file names none.
///
/// # Errors
/// Fails if the file cannot be used, or a fleet is wanted and not there.
pub(super) fn running(file: &Path, is_wanted: bool) -> Result<Option<Vec<Endpoint>>, CliError> {
    if !is_wanted && !file.exists() {
        return Ok(None);
    }
    let seeds: Vec<_> = config::read(file)?.into_iter().map(|it| it.endpoint).collect();
    let answers = |seed: &Endpoint| {
        let addr: SocketAddr = seed.socket_addr();
        thread::spawn("seed?", move || TcpStream::connect_timeout(&addr, SEED_PATIENCE).is_ok())
    };
    let calls: Vec<_> = seeds.iter().filter_map(|seed| answers(seed).ok()).collect();
    let there = calls.into_iter().filter_map(|call| call.join().ok()).filter(|it| *it).count();
    let needed = QuorumRule::Majority.needed(seeds.len());
    if there >= needed {
        return Ok(Some(seeds));
    }
    if is_wanted {
        return Err(CliError::Failed(format!(
            "{there} of the {} seeds of {} answer, {needed} are needed; start them (seed --id N), \
             or leave --config out to go without a fleet",
            seeds.len(),
            file.display()
        )));
    }
    Ok(None)
}
