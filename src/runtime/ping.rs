//! The system's `ping`: tests whether a host answers at all if a port on it does not.
//!
//! The answer is evidence and never a verdict, and a machine without a usable `ping` is as good as
//! any other: then nothing is learned.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::clock::Clock;
use crate::machine::HostAnswer;
use crate::model::Time;

/// Largest number of `ping` processes at a time; suspicions come in bursts.
pub const PINGS_MAX: usize = 4;

/// Time after which a `ping` is killed. It was told to wait one second, so it is stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the system `ping` for `host` once. Blocks for up to three seconds.
#[must_use]
pub fn ask(host: IpAddr, clock: &Clock) -> HostAnswer {
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "1"]).arg(host.to_string());
    match run(command, PATIENCE, clock).map(|status| status.and_then(|status| status.code())) {
        Ok(Some(0)) => HostAnswer::Answered,
        Ok(Some(1)) => HostAnswer::Silent,
        Ok(Some(_) | None) => HostAnswer::NoPing,
        Err(err) => {
            log::debug!("cannot run ping: {err}");
            HostAnswer::NoPing
        }
    }
}

/// Runs `command` to its end; `None` if it had to be killed, after `patience`.
fn run(mut command: Command, patience: Duration, clock: &Clock) -> io::Result<Option<ExitStatus>> {
    // The standard library cannot wait for a process with a time-out, but for the end of its
    // output it can: the child holds the only other end of this pair.
    let (ours, theirs) = UnixStream::pair()?;
    command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
    let mut child = command.spawn()?;
    drop(command);
    match await_end_of_output(ours, clock.now().mono.after(patience), clock) {
        Ok(()) => child.wait().map(Some),
        Err(err) => {
            log::debug!("ping did not come back: {err}");
            kill(&mut child)?;
            Ok(None)
        }
    }
}

fn await_end_of_output(mut output: UnixStream, deadline: Time, clock: &Clock) -> io::Result<()> {
    let mut discarded = [0; 1024];
    loop {
        let left = deadline.since(clock.now().mono);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        output.set_read_timeout(Some(left))?;
        match output.read(&mut discarded) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

fn kill(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_exit_code_of_a_command_is_learnt_whatever_it_prints() {
        let clock = Clock::start();
        let noisy =
            shell("i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done; exit 1");
        assert_eq!(run(noisy, PATIENCE, &clock).unwrap().unwrap().code(), Some(1));
        assert_eq!(run(shell("exit 0"), PATIENCE, &clock).unwrap().unwrap().code(), Some(0));
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let clock = Clock::start();
        let stuck = shell("exec tail -f /dev/null");
        assert!(run(stuck, Duration::from_millis(20), &clock).unwrap().is_none());
    }

    #[test]
    fn a_missing_command_is_an_error_and_no_more() {
        let absent = Command::new("no-such-command-anywhere");
        assert!(run(absent, PATIENCE, &Clock::start()).is_err());
    }
}
