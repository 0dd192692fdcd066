//! Measurement of swarms: one process that has a file and some that want it, on this machine.
//!
//! In the same run the plain limit is measured: one process that sends the file to as many with
//! `sendfile`, and those write it and do nothing else. A fetching process also checks every piece.
//! Files are compared byte by byte afterwards, outside the measured time.

mod part;
mod process;
mod size;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

pub use self::part::PartArgs;
pub(super) use self::part::run as run_part;
use self::part::{Assigned, Part};
use self::process::{Measured, SwarmProcesses};
pub(super) use self::size::BinarySize;
use super::figure::{Sheet, Target};
use crate::cli::CliError;
use crate::model::Rng;
use crate::runtime::swarm::store::piece_size_for;

/// Targets for the time of a swarm: relative to the plain limit, and absolute for 512 MiB to four.
const RATIO_WANTED: f64 = 2.0;
const CPU_WANTED: f64 = 2.5;
const MIB_WANTED: f64 = 27.0;
const ASSIGNMENT_SECS_WANTED: f64 = 5.0;

/// Name of the content.
const NAME: &str = "content.bin";

/// Flags of this measurement.
#[derive(Clone, Debug, Args)]
pub struct SwarmBenchArgs {
    /// Bytes of the file
    #[arg(long, value_name = "BYTES", default_value = "512M")]
    pub size: BinarySize,
    /// Number of processes that fetch it
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub leechers: u16,
    /// Bytes of a piece; chosen by the size of the file, or 32K in an assignment's swarm
    #[arg(long, value_name = "BYTES")]
    pub piece: Option<BinarySize>,
    /// Measure an assignment's swarm: one request a neighbor, preferred neighbors by intervals
    #[arg(long)]
    pub assignment: bool,
    /// Preferred neighbors of the assignment's swarm
    #[arg(short, value_name = "N", default_value_t = 3)]
    pub k: usize,
    /// Seconds between two choices of the preferred neighbors
    #[arg(short, value_name = "SECONDS", default_value_t = 1)]
    pub p: u64,
    /// Seconds between two choices of the optimistic one
    #[arg(short, value_name = "SECONDS", default_value_t = 3)]
    pub m: u64,
    /// Bytes a second that the process with the file sends at most
    #[arg(long, value_name = "BYTES")]
    pub up: Option<BinarySize>,
    /// Folder for the files; one of its own is made there, and removed again
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Measures, and prints a JSON line a figure.
pub(super) fn run(args: &SwarmBenchArgs) -> Result<(), CliError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bench-swarm-");
    let made = match &args.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let folder = made.map_err(|source| CliError::System { action: "make a folder", source })?;
    let bench = Bench::new(args, folder.path())?;
    if args.up.is_none() {
        let limit = bench.limit()?;
        let swarm = if args.assignment { bench.assignment()? } else { bench.share()? };
        return bench.compare(&limit, &swarm);
    }
    let swarm = bench.share()?;
    bench.capped(&swarm)
}

struct Bench<'a> {
    args: &'a SwarmBenchArgs,
    folder: &'a Path,
    file: PathBuf,
    piece_size: u32,
    sheet: Sheet,
}

impl<'a> Bench<'a> {
    fn new(args: &'a SwarmBenchArgs, folder: &'a Path) -> Result<Self, CliError> {
        let default = if args.assignment { 32_768 } else { piece_size_for(args.size.0) };
        let piece_size = match args.piece {
            None => default,
            Some(size) => u32::try_from(size.0)
                .map_err(|_| CliError::Usage(format!("--piece {} is too large", size.0)))?,
        };
        let mut sheet = Sheet::new(json!({ "bench": "swarm", "bytes": args.size.0,
            "leechers": args.leechers, "cores": super::figure::cores() }));
        sheet.note("version", env!("CARGO_PKG_VERSION").into());
        let home = folder.join("source");
        let made = std::fs::create_dir(&home).and_then(|()| {
            let file = home.join(NAME);
            fill(&file, args.size.0).map(|()| file)
        });
        let file = made.map_err(|source| CliError::System { action: "make the file", source })?;
        Ok(Self { args, folder, file, piece_size, sheet })
    }

    /// Measures the plain limit.
    fn limit(&self) -> Result<Measured, CliError> {
        let mut processes = SwarmProcesses::default();
        let takers = self.args.leechers;
        processes.start(&Part::Source { file: self.file.clone(), takers })?;
        let copies: Vec<_> = self.places("limit")?;
        for copy in &copies {
            processes.start(&Part::Sink { file: copy.join(NAME) })?;
        }
        processes.get_ready()?;
        let measured = processes.measure(1)?;
        self.print("limit", &measured)?;
        self.check_and_remove(&copies)?;
        Ok(measured)
    }

    /// Measures a share.
    fn share(&self) -> Result<Measured, CliError> {
        let mut processes = SwarmProcesses::default();
        let up = self.args.up.map(|it| it.0);
        let (file, piece_size) = (self.file.clone(), self.piece_size);
        processes.start(&Part::Share { file, piece_size, up })?;
        let ready = processes.get_ready()?;
        let ticket = ready[0]["ticket"].as_str().unwrap_or_default().to_owned();
        let copies = self.places("copy")?;
        for folder in &copies {
            processes.start(&Part::Fetch { folder: folder.clone(), ticket: ticket.clone() })?;
        }
        processes.get_ready()?;
        let measured = processes.measure(1)?;
        self.print("share", &measured)?;
        self.check_and_remove(&copies)?;
        Ok(measured)
    }

    /// Measures an assignment's swarm.
    fn assignment(&self) -> Result<Measured, CliError> {
        let mut processes = SwarmProcesses::default();
        let members: Vec<_> = (0..=u32::from(self.args.leechers)).map(|it| 1001 + it).collect();
        let copies = self.places("peer")?;
        let home = self.file.parent().unwrap_or(self.folder).to_owned();
        let folders = std::iter::once(&home).chain(&copies);
        for (me, folder) in members.iter().zip(folders) {
            processes.start(&Part::Assigned(Assigned {
                folder: folder.clone(),
                name: NAME.to_owned(),
                size: self.args.size.0,
                piece_size: self.piece_size,
                me: *me,
                members: members.clone(),
                k: self.args.k,
                p_secs: self.args.p,
                m_secs: self.args.m,
            }))?;
        }
        processes.get_ready()?;
        let measured = processes.measure(1)?;
        self.print("assignment", &measured)?;
        self.check_and_remove(&copies)?;
        Ok(measured)
    }

    fn places(&self, name: &str) -> Result<Vec<PathBuf>, CliError> {
        let make = |number| {
            let place = self.folder.join(format!("{name}-{number}"));
            std::fs::create_dir(&place).map(|()| place)
        };
        let made: Result<_, _> = (1..=self.args.leechers).map(make).collect();
        made.map_err(|source| CliError::System { action: "make a folder", source })
    }

    fn print(&self, what: &str, measured: &Measured) -> Result<(), CliError> {
        let gib = self.moved_gib();
        self.sheet.line(
            what,
            json!({
                "piece_bytes": self.piece_size,
                "written_s": measured.written,
                "kept_s": measured.kept,
                "mib_a_second": gib * 1_024.0 / measured.written,
                "cpu_s": measured.cpu,
                "cpu_s_per_gib": measured.cpu / gib,
                "peak_mib": measured.peaks,
            }),
        )
    }

    /// Sum of all copies, in GiB.
    fn moved_gib(&self) -> f64 {
        self.args.size.0 as f64 * f64::from(self.args.leechers) / f64::from(1 << 30)
    }

    fn compare(&self, limit: &Measured, swarm: &Measured) -> Result<(), CliError> {
        let sheet = &self.sheet;
        if self.args.assignment {
            let target = Target::AtMost(ASSIGNMENT_SECS_WANTED);
            return sheet.judged("assignment_written_s", &[swarm.written], target);
        }
        let ratio = Target::AtMost(RATIO_WANTED);
        sheet.judged("times_the_limit_written", &[swarm.written / limit.written], ratio)?;
        sheet.judged("times_the_limit_kept", &[swarm.kept / limit.kept], ratio)?;
        let cpu = swarm.cpu / self.moved_gib();
        sheet.judged("cpu_s_per_gib", &[cpu], Target::AtMost(CPU_WANTED))?;
        sheet.judged("peak_mib", &swarm.peaks, Target::AtMost(MIB_WANTED))
    }

    fn capped(&self, swarm: &Measured) -> Result<(), CliError> {
        let Some(up) = self.args.up else { return Ok(()) };
        let least = self.args.size.0 as f64 / up.0.max(1) as f64;
        let sent = swarm.sent as f64 / self.args.size.0.max(1) as f64;
        self.sheet.line(
            "capped",
            json!({ "up": up.0, "lower_bound_s": least, "times_the_bound": swarm.written / least,
                "copies_sent": sent }),
        )
    }

    /// Compares all copies with the content, and removes them.
    fn check_and_remove(&self, folders: &[PathBuf]) -> Result<(), CliError> {
        let failed = |source| CliError::System { action: "compare the copies", source };
        for folder in folders {
            if !is_same(&self.file, &folder.join(NAME)).map_err(failed)? {
                let text = format!("the copy in {} is not the file", folder.display());
                return Err(CliError::Failed(text));
            }
            std::fs::remove_dir_all(folder).map_err(failed)?;
        }
        self.sheet.line("compared", json!({ "copies": folders.len(), "same": Value::from(true) }))
    }
}

/// Writes a file of random bytes.
fn fill(path: &Path, size: u64) -> std::io::Result<()> {
    let (mut file, mut rng) = (File::create_new(path)?, Rng::seed_from_u64(1));
    let mut bytes = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        rng.fill_bytes(&mut bytes[..len]);
        file.write_all(&bytes[..len])?;
        left -= len as u64;
    }
    // The later measurements must not share the disk with this write.
    file.sync_all()
}

fn is_same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let len = one.read(&mut left)?;
        if len == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..len])?;
        if left[..len] != right[..len] {
            return Ok(false);
        }
    }
}
