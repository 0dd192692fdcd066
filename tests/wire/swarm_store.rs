//! Content on a real disk: what survives a kill, and what never leaves its folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use folkmoot::machine::swarm::leaf_hash;
use folkmoot::model::{FileAttributes, FileEntry, FileList, Rng};
use folkmoot::proto::swarm::{PieceIndex, Pieces};
use folkmoot::runtime::swarm::store::{
    Checked, ContentStoreError, Fetch, Hashing, OfferedFiles, Store, TreeCache,
};
use rand::seq::SliceRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

const NAME: &str = "big.iso";
const ID: [u8; 32] = [9; 32];

fn pieces(size: u64, piece_size: u32) -> Pieces {
    Pieces::new(size, piece_size).unwrap()
}

/// Content of piece `index` in these tests: not zeros, and another in each.
fn content(pieces: Pieces, index: PieceIndex) -> Vec<u8> {
    let mut data = vec![0; pieces.len(index).unwrap() as usize];
    Rng::seed_from_u64(index.0.into()).fill_bytes(&mut data);
    data
}

fn all(pieces: Pieces) -> impl Iterator<Item = PieceIndex> {
    (0..pieces.count()).map(PieceIndex)
}

fn fetch(folder: &Path, pieces: Pieces) -> Result<Store, ContentStoreError> {
    let fetch = Fetch {
        folder,
        name: NAME,
        id: ID,
        pieces,
        list: None,
        traits: FileAttributes::default(),
        preallocates: false,
    };
    Store::fetched(&fetch)
}

fn write(store: &Store, index: PieceIndex) {
    store.write_piece(index, &content(store.pieces(), index)).unwrap();
}

/// Brings content to its end, in which nothing may be in doubt.
#[track_caller]
fn finish(store: &Store) {
    assert_eq!(store.finish(&|_| None).unwrap(), Checked::default());
}

fn holds(store: &Store, index: PieceIndex) -> bool {
    let mut data = Vec::new();
    store.read_piece(index, &mut data).unwrap();
    data == content(store.pieces(), index)
}

/// Not a test of its own: what the next one kills.
#[test]
fn the_child_that_is_killed() {
    let Ok(task) = std::env::var("STORE_CHILD") else { return };
    let (folder, seed) = task.rsplit_once(' ').unwrap();
    let mut rng = Rng::seed_from_u64(seed.parse().unwrap());
    let store = open_for_kill(Path::new(folder), seed).unwrap();
    let mut missing: Vec<_> =
        all(store.pieces()).filter(|it| !store.proven().contains(it)).collect();
    missing.shuffle(&mut rng);
    let mut out = std::io::stdout().lock();
    for index in missing {
        std::io::stdin().read_exact(&mut [0]).unwrap();
        write(&store, index);
        // Below the harness: it would hold the line back.
        writeln!(out, "\nwrote {}", index.0).unwrap();
        out.flush().unwrap();
        if rng.random_ratio(1, 20) {
            store.sync().unwrap();
        }
    }
    writeln!(out, "\nwrote all").unwrap();
    out.flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Rounds with odd numbers are the assignment's.
fn open_for_kill(folder: &Path, seed: &str) -> Result<Store, ContentStoreError> {
    let pieces = pieces(3_000_001, 10_000);
    match seed.parse::<u64>().unwrap() % 2 {
        0 => fetch(folder, pieces),
        _ => Store::assigned(folder, NAME, pieces, false),
    }
}

#[test]
fn after_kills_at_any_moment_nothing_is_lost_and_nothing_half_is_believed() {
    for round in 0..4_u64 {
        let dir = tempfile::tempdir().unwrap();
        let seed = round.to_string();
        let mut rng = Rng::seed_from_u64(round);
        let (mut written, mut kills) = (std::collections::BTreeSet::new(), 0);
        loop {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "swarm_store::the_child_that_is_killed", "--nocapture"])
                .env("STORE_CHILD", format!("{} {seed}", dir.path().display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // The child is a few pieces ahead of what is read here, on the fastest disk too.
            let mut leave = child.stdin.take().unwrap();
            leave.write_all(&[0; 8]).unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let (mut left, mut is_done) = (rng.random_range(1..120), false);
            for line in lines.map_while(Result::ok) {
                let Some(what) = line.strip_prefix("wrote ") else { continue };
                match what.parse::<u32>() {
                    Ok(index) => assert!(written.insert(index), "piece {index} is written twice"),
                    Err(_) => is_done = true,
                }
                left -= 1;
                // It may have been killed already.
                let _ = leave.write_all(&[0]);
                if left == 0 || is_done {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            kills += 1;
            let store = open_for_kill(dir.path(), &seed).unwrap();
            assert!(store.proven().iter().all(|it| holds(&store, *it)), "a piece is false");
            // The one under way may be there without having been told of.
            let lost: Vec<_> =
                written.iter().filter(|it| !store.proven().contains(&PieceIndex(**it))).collect();
            assert!(lost.is_empty(), "{lost:?} were written and are lost");
            written.extend(store.proven().iter().map(|it| it.0));
            if is_done {
                finish(&store);
                break;
            }
        }
        assert!(kills > 2, "it was killed amid its work");
        assert_eq!(fs::metadata(dir.path().join(NAME)).unwrap().len(), 3_000_001);
    }
}

#[test]
fn a_claim_without_its_piece_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(100_000, 1_000);
    let store = fetch(dir.path(), pieces).unwrap();
    all(pieces).take(50).for_each(|it| write(&store, it));
    drop(store);
    // The machine stopped: the record reached the disk and piece 7 did so in part.
    let part = fs::OpenOptions::new().write(true).open(dir.path().join("big.iso.part")).unwrap();
    part.write_all_at(&[0; 10], 7_500).unwrap();
    let store = fetch(dir.path(), pieces).unwrap();
    let wanted: Vec<_> = all(pieces).take(50).filter(|it| it.0 != 7).collect();
    assert_eq!(store.proven(), wanted);
    // What was found out is remembered, even if the disk is told to keep everything after that.
    write(&store, PieceIndex(60));
    store.sync().unwrap();
    drop(store);
    let store = fetch(dir.path(), pieces).unwrap();
    assert!(!store.proven().contains(&PieceIndex(7)));
    assert_eq!(store.proven().len(), 50);
}

#[test]
fn a_record_cut_anywhere_costs_pieces_and_no_truth() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10_000, 100);
    let store = fetch(dir.path(), pieces).unwrap();
    all(pieces).take(30).for_each(|it| write(&store, it));
    store.sync().unwrap();
    drop(store);
    let record = dir.path().join("big.iso.part-resume");
    let whole = fs::read(&record).unwrap();
    let mut last = 31;
    for end in (0..=whole.len()).rev().step_by(5) {
        fs::write(&record, &whole[..end]).unwrap();
        let store = fetch(dir.path(), pieces).unwrap();
        assert!(store.proven().iter().all(|it| holds(&store, *it)));
        assert!(store.proven().len() <= last, "less of a record does not prove more");
        last = store.proven().len();
    }
    assert_eq!(last, 0);
}

#[test]
fn in_the_assignment_a_file_that_was_replaced_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10_000, 100);
    let open = || Store::assigned(dir.path(), NAME, pieces, false).unwrap();
    let store = open();
    all(pieces).for_each(|it| write(&store, it));
    finish(&store);
    drop(store);
    assert_eq!(open().proven().len(), 100);
    // Changed in place, long after the disk was told to keep it.
    let file = fs::OpenOptions::new().write(true).open(dir.path().join(NAME)).unwrap();
    file.write_all_at(b"no", 4_242).unwrap();
    assert_eq!(open().proven().len(), 99);
    // Another file of the same name and size.
    fs::rename(dir.path().join(NAME), dir.path().join("old")).unwrap();
    fs::write(dir.path().join(NAME), vec![1; 10_000]).unwrap();
    assert_eq!(open().proven(), []);
    // And without any record.
    let whole = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("old"), whole.path().join(NAME)).unwrap();
    assert_eq!(Store::assigned(whole.path(), NAME, pieces, false).unwrap().proven(), []);
}

#[test]
fn whoever_should_have_the_file_has_it_whole_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |size| Store::assigned(dir.path(), NAME, pieces(size, 100), true);
    assert!(open(1_000).unwrap_err().to_string().contains(NAME));
    fs::write(dir.path().join(NAME), vec![1; 1_000]).unwrap();
    assert_eq!(open(1_000).unwrap().proven().len(), 10);
    for other in [999, 1_001] {
        let err = open(other).unwrap_err();
        assert!(matches!(err, ContentStoreError::WrongSize { is: 1_000, .. }), "{err}");
    }
}

/// Not a test of its own: the limit is of a whole process.
#[test]
fn the_child_with_a_full_disk() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let Ok(folder) = std::env::var("FULL_CHILD") else { return };
    // The signal that comes with the error would end the process.
    let heard = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, heard).unwrap();
    let pieces = pieces(100_000, 1_000);
    let store = fetch(Path::new(&folder), pieces).unwrap();
    let limit = |current| {
        setrlimit(Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some(50_500));
    for index in all(pieces) {
        let outcome = store.write_piece(index, &content(pieces, index));
        match index.0 {
            0..50 => outcome.unwrap(),
            _ => assert!(matches!(outcome, Err(ContentStoreError::TooLarge { .. })), "{outcome:?}"),
        }
    }
    let open = Store::fetched(&Fetch {
        folder: Path::new(&folder),
        name: "other",
        id: ID,
        pieces,
        list: None,
        traits: FileAttributes::default(),
        preallocates: true,
    });
    assert!(matches!(open, Err(ContentStoreError::TooLarge { .. })), "{open:?}");
    assert!(open.unwrap_err().to_string().contains("larger than"));
    limit(None);
}

#[test]
fn a_full_disk_is_said_so_and_what_was_written_before_counts() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "swarm_store::the_child_with_a_full_disk", "--nocapture"])
        .env("FULL_CHILD", dir.path())
        .status();
    assert!(child.unwrap().success());
    let pieces = pieces(100_000, 1_000);
    let store = fetch(dir.path(), pieces).unwrap();
    assert_eq!(store.proven(), all(pieces).take(50).collect::<Vec<_>>());
    all(pieces).skip(50).for_each(|it| write(&store, it));
    finish(&store);
    assert!(all(pieces).all(|it| holds(&store, it)));
}

#[test]
fn more_than_the_disk_can_hold_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(1 << 45, 16 << 20);
    let opened = fetch(dir.path(), pieces);
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("no room") && text.contains(NAME), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn links_pipes_and_second_names_are_not_written_through() {
    let pieces = pieces(1_000, 100);
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    let trap = |path: &Path, kind: usize| match kind {
        0 => symlink(&victim, path).unwrap(),
        1 => symlink(outside.path(), path).unwrap(),
        2 => fs::hard_link(&victim, path).unwrap(),
        3 => rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap(),
        _ => symlink(outside.path().join("absent"), path).unwrap(),
    };
    for kind in 0..5 {
        for name in ["big.iso.part", "big.iso.part-resume"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(&victim, vec![7; 1_000]).unwrap();
            trap(&dir.path().join(name), kind);
            let opened = fetch(dir.path(), pieces);
            let is_refused = matches!(
                opened,
                Err(ContentStoreError::NotPlain { .. } | ContentStoreError::Exists { .. })
            );
            // What has a second name is copied first.
            let is_apart = kind == 2 && fs::metadata(&victim).unwrap().nlink() == 1;
            assert!(is_refused || is_apart, "{kind} {name} {opened:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        trap(&dir.path().join(NAME), kind);
        let opened = fetch(dir.path(), pieces);
        assert!(matches!(opened, Err(ContentStoreError::Exists { .. })), "{kind} {opened:?}");
        let opened = Store::assigned(dir.path(), NAME, pieces, false);
        let is_apart = kind == 2 && fs::metadata(&victim).unwrap().nlink() == 1;
        let is_refused = matches!(opened, Err(ContentStoreError::NotPlain { .. }));
        assert!(is_refused || is_apart, "{kind} {opened:?}");
        assert_eq!(fs::read(&victim).unwrap(), vec![7; 1_000]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_link_put_into_a_folder_under_way_leads_nowhere() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entry = |path: &str, size| FileEntry::new(path, size);
    let list = FileList::new(vec![entry("sub/a", 500), entry("b", 500)]).unwrap();
    let pieces = pieces(1_000, 500);
    let fetch = Fetch {
        folder: dir.path(),
        name: "docs",
        id: ID,
        pieces,
        list: Some(list.digest()),
        traits: FileAttributes::default(),
        preallocates: false,
    };
    let store = Store::fetched(&fetch).unwrap();
    store.lay_out(&list.encode()).unwrap();
    symlink(outside.path(), dir.path().join("docs.part/sub")).unwrap();
    write(&store, PieceIndex(0));
    let written = store.write_piece(PieceIndex(1), &[1; 500]);
    assert!(matches!(written, Err(ContentStoreError::NotPlain { .. })), "{written:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10, 10);
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b", &"x".repeat(256)] {
        let fetch = Fetch {
            folder: dir.path(),
            name,
            id: ID,
            pieces,
            list: None,
            traits: FileAttributes::default(),
            preallocates: false,
        };
        assert!(
            matches!(Store::fetched(&fetch), Err(ContentStoreError::BadName { .. })),
            "{name:?}"
        );
        let assigned = Store::assigned(dir.path(), name, pieces, false);
        assert!(matches!(assigned, Err(ContentStoreError::BadName { .. })), "{name:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // The longest name has no room for anything more.
    let name = "ü".repeat(127);
    let fetch = Fetch {
        folder: dir.path(),
        name: &name,
        id: ID,
        pieces,
        list: None,
        traits: FileAttributes::default(),
        preallocates: false,
    };
    let store = Store::fetched(&fetch).unwrap();
    write(&store, PieceIndex(0));
    finish(&store);
    assert_eq!(fs::read(dir.path().join(name)).unwrap(), content(pieces, PieceIndex(0)));
}

#[test]
fn the_smallest_contents_are_stored_too() {
    for size in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let pieces = pieces(size, 1_000);
        let store = fetch(dir.path(), pieces).unwrap();
        all(pieces).for_each(|it| write(&store, it));
        assert!(!dir.path().join(NAME).exists(), "not before it is whole");
        finish(&store);
        assert_eq!(fs::metadata(dir.path().join(NAME)).unwrap().len(), size);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn five_gib_of_holes_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces((5 << 30) + 1, 4 << 20);
    let store = fetch(dir.path(), pieces).unwrap();
    let zeros = vec![0; 4 << 20];
    for index in all(pieces).take(pieces.count() as usize - 1) {
        store.write_piece(index, &zeros).unwrap();
    }
    store.write_piece(PieceIndex(pieces.count() - 1), &[5]).unwrap();
    // What was there before is gone where zeros are written.
    write(&store, PieceIndex(3));
    store.write_piece(PieceIndex(3), &zeros).unwrap();
    finish(&store);
    let meta = fs::metadata(dir.path().join(NAME)).unwrap();
    assert_eq!(meta.len(), (5 << 30) + 1);
    assert!(meta.blocks() * 512 < 16 << 20, "{} blocks", meta.blocks());
    let mut data = Vec::new();
    store.read_piece(PieceIndex(3), &mut data).unwrap();
    assert_eq!(data, zeros);
    store.read_piece(PieceIndex(pieces.count() - 1), &mut data).unwrap();
    assert_eq!(data, [5]);
}

#[test]
fn a_hundred_thousand_pieces_are_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(1_600_000, 16);
    let store = fetch(dir.path(), pieces).unwrap();
    let mut order: Vec<_> = all(pieces).collect();
    order.shuffle(&mut Rng::seed_from_u64(1));
    order.iter().take(99_999).for_each(|it| write(&store, *it));
    drop(store);
    let store = fetch(dir.path(), pieces).unwrap();
    assert_eq!(store.proven().len(), 99_999);
    write(&store, order[99_999]);
    finish(&store);
    assert!(all(pieces).step_by(97).all(|it| holds(&store, it)));
}

#[test]
fn a_name_that_is_taken_meanwhile_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10, 10);
    let store = fetch(dir.path(), pieces).unwrap();
    write(&store, PieceIndex(0));
    fs::write(dir.path().join(NAME), "mine").unwrap();
    assert!(matches!(store.finish(&|_| None), Err(ContentStoreError::Exists { .. })));
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"mine");
    fs::remove_file(dir.path().join(NAME)).unwrap();
    finish(&store);
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), content(pieces, PieceIndex(0)));
}

#[test]
fn two_do_not_fetch_the_same_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10, 10);
    let held = fetch(dir.path(), pieces).unwrap();
    assert!(matches!(fetch(dir.path(), pieces), Err(ContentStoreError::InUse { .. })));
    drop(held);
    fetch(dir.path(), pieces).unwrap();
}

#[test]
fn a_folder_is_offered_fetched_and_taken_up_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = from.path().join("docs");
    fs::create_dir_all(root.join("deep/er")).unwrap();
    let files = [("a", 0), ("deep/b", 1_234), ("deep/er/c", 1), ("deep/er/d", 0), ("z", 777)];
    for (path, size) in files {
        fs::write(root.join(path), vec![size as u8; size]).unwrap();
    }
    symlink("/etc/passwd", root.join("link")).unwrap();
    let offer = OfferedFiles::new(&root).unwrap();
    assert_eq!((offer.name(), offer.size(), offer.left_out().len()), ("docs", 2_012, 1));
    let pieces = pieces(2_012, 100);
    let list = offer.list().unwrap().to_vec();
    let digest = FileList::decode(&list, 2_012).unwrap().digest();
    let source = offer.store(pieces).unwrap();
    let open = || {
        Store::fetched(&Fetch {
            folder: to.path(),
            name: "docs",
            id: ID,
            pieces,
            list: Some(digest),
            traits: FileAttributes::default(),
            preallocates: true,
        })
    };
    let store = open().unwrap();
    assert!(store.wants_list());
    assert!(store.lay_out(&list[1..]).is_err(), "another list than the ticket names");
    store.lay_out(&list).unwrap();
    store.keep_list().unwrap();
    let mut data = Vec::new();
    for index in all(pieces).take(9) {
        source.read_piece(index, &mut data).unwrap();
        store.write_piece(index, &data).unwrap();
    }
    drop(store);
    let store = open().unwrap();
    assert!(!store.wants_list());
    assert_eq!(store.proven().len(), 9);
    for index in all(pieces).skip(9) {
        source.read_piece(index, &mut data).unwrap();
        store.write_piece(index, &data).unwrap();
    }
    let part = fs::read_dir(to.path()).unwrap().map(|it| it.unwrap().path()).find(|it| it.is_dir());
    let stray = part.unwrap().join("deep/stray");
    fs::write(&stray, "not of the share").unwrap();
    let told = store.finish(&|_| None).unwrap_err();
    assert!(matches!(&told, ContentStoreError::Stray { path } if *path == stray), "{told}");
    fs::remove_file(stray).unwrap();
    finish(&store);
    for (path, size) in files {
        let copy = fs::read(to.path().join("docs").join(path)).unwrap();
        assert_eq!(copy, vec![size as u8; size], "{path}");
    }
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_file_that_changes_is_offered_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, vec![1; 1_000]).unwrap();
    let store = OfferedFiles::new(&path).unwrap().store(pieces(1_000, 100)).unwrap();
    assert_eq!(store.parts(PieceIndex(3)).unwrap()[0].offset, 300);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let parts = store.parts(PieceIndex(3));
    assert!(matches!(parts, Err(ContentStoreError::Changed { .. })), "{parts:?}");
}

#[test]
fn hashes_are_kept_as_long_as_the_file_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, (0..10_000_u32).map(|it| it as u8).collect::<Vec<_>>()).unwrap();
    let cache = TreeCache::new(dir.path().join("cache"));
    let pieces = pieces(10_000, 1_000);
    let hash = || {
        let steps = std::sync::atomic::AtomicU32::new(0);
        let progress = |_| {
            steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            true
        };
        let hashing = Hashing { threads: 3, cache: Some(&cache), progress: &progress };
        let leaves = hashing.leaves(&OfferedFiles::new(&path).unwrap(), pieces).unwrap();
        (leaves, steps.into_inner())
    };
    let bytes = fs::read(&path).unwrap();
    let wanted: Vec<_> = bytes.chunks(1_000).map(leaf_hash).collect();
    assert_eq!(hash(), (wanted.clone(), 10));
    assert_eq!(hash(), (wanted.clone(), 1), "nothing was read");
    // A flipped bit in what was kept: hashed anew.
    let kept = fs::read_dir(dir.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    let mut damaged = fs::read(&kept).unwrap();
    damaged[100] ^= 1;
    fs::write(&kept, damaged).unwrap();
    assert_eq!(hash(), (wanted, 10));
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"other", 5_000).unwrap();
    let (leaves, steps) = hash();
    assert_eq!((leaves[5], steps), (leaf_hash(&fs::read(&path).unwrap()[5_000..6_000]), 10));
}

#[test]
fn hashing_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, vec![1; 10_000]).unwrap();
    let hashing = Hashing { threads: 2, cache: None, progress: &|done| done < 3_000 };
    let outcome = hashing.leaves(&OfferedFiles::new(&path).unwrap(), pieces(10_000, 1_000));
    assert!(matches!(outcome, Err(ContentStoreError::Stopped)), "{outcome:?}");
}

#[test]
fn what_others_put_under_the_working_name_is_left_alone_or_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10_000, 100);
    let part = dir.path().join("big.iso.part");
    fs::write(&part, b"somebody's own").unwrap();
    let refused = fetch(dir.path(), pieces);
    assert!(matches!(refused, Err(ContentStoreError::Exists { .. })), "{refused:?}");
    assert_eq!(fs::read(&part).unwrap(), b"somebody's own");
    fs::remove_file(&part).unwrap();

    let store = fetch(dir.path(), pieces).unwrap();
    all(pieces).take(30).for_each(|it| write(&store, it));
    store.sync().unwrap();
    drop(store);
    assert_eq!(fetch(dir.path(), pieces).unwrap().proven().len(), 30);
    // Somebody changes it later: it is younger than its record.
    let file = fs::OpenOptions::new().write(true).open(&part).unwrap();
    file.write_all_at(b"no", 1_042).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    let later = before + std::time::Duration::from_secs(60);
    file.set_modified(later).unwrap();
    assert_eq!(fetch(dir.path(), pieces).unwrap().proven().len(), 29);
}

/// Does something to a file until its time of change is another: clocks of disks have ticks.
fn disturb(path: &Path, mut how: impl FnMut()) {
    let ctime = || fs::metadata(path).map(|it| (it.ctime(), it.ctime_nsec())).ok();
    let before = ctime();
    how();
    while ctime() == before {
        how();
    }
}

fn write_at(path: &Path, bytes: &[u8], at: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, at).unwrap();
    // As those do who do not want to be seen.
    file.set_modified(modified).unwrap();
}

#[test]
fn what_was_changed_between_two_tries_is_read_again_although_size_and_time_are_the_same() {
    let pieces = pieces(10_000, 100);
    for how in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("big.iso.part");
        let store = fetch(dir.path(), pieces).unwrap();
        all(pieces).take(30).for_each(|it| write(&store, it));
        store.sync().unwrap();
        drop(store);
        let store = fetch(dir.path(), pieces).unwrap();
        assert_eq!((store.proven().len(), store.read_again()), (30, &Checked::default()));
        drop(store);
        match how {
            0 => disturb(&part, || write_at(&part, b"no", 1_042)),
            1 => fs::remove_file(&part).unwrap(),
            2 => disturb(&part, || {
                let file = fs::OpenOptions::new().write(true).open(&part).unwrap();
                file.set_len(1_042).unwrap();
                file.set_len(10_000).unwrap();
            }),
            _ => {
                // Another file in its place, with the same bytes but for one.
                let mut bytes = fs::read(&part).unwrap();
                bytes[1_042] ^= 1;
                fs::write(dir.path().join("new"), bytes).unwrap();
                fs::rename(dir.path().join("new"), &part).unwrap();
            }
        }
        let store = fetch(dir.path(), pieces).unwrap();
        let left = [29, 0, 10, 29][how];
        assert_eq!(store.proven().len(), left, "{how}");
        let Checked { read, lost, files } = store.read_again();
        assert_eq!((*read, lost.len(), files.len()), (30, 30 - left, 1), "{how}");
        for index in all(pieces).filter(|it| !store.proven().contains(it)) {
            write(&store, index);
        }
        finish(&store);
        assert!(all(pieces).all(|it| holds(&store, it)), "{how}");
    }
}

#[test]
fn a_touched_file_is_read_again_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10_000, 100);
    let part = dir.path().join("big.iso.part");
    let store = fetch(dir.path(), pieces).unwrap();
    all(pieces).take(30).for_each(|it| write(&store, it));
    store.sync().unwrap();
    drop(store);
    disturb(&part, || write_at(&part, b"", 0));
    let store = fetch(dir.path(), pieces).unwrap();
    assert_eq!((store.proven().len(), store.read_again().lost.len()), (30, 0));
    assert_eq!(store.read_again().files, ["big.iso.part"]);
    drop(store);
    let store = fetch(dir.path(), pieces).unwrap();
    assert_eq!(store.read_again(), &Checked::default(), "once is enough");
}

#[test]
fn a_copy_is_written_to_where_a_snapshot_has_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = pieces(10_000, 100);
    let store = fetch(dir.path(), pieces).unwrap();
    all(pieces).take(30).for_each(|it| write(&store, it));
    store.sync().unwrap();
    drop(store);
    fs::create_dir(dir.path().join("snapshot")).unwrap();
    for name in ["big.iso.part", "big.iso.part-resume"] {
        fs::hard_link(dir.path().join(name), dir.path().join("snapshot").join(name)).unwrap();
    }
    let kept = fs::read(dir.path().join("snapshot/big.iso.part")).unwrap();
    let store = fetch(dir.path(), pieces).unwrap();
    assert_eq!(store.proven().len(), 30);
    all(pieces).skip(30).for_each(|it| write(&store, it));
    finish(&store);
    assert!(all(pieces).all(|it| holds(&store, it)));
    assert!(fs::read(dir.path().join("snapshot/big.iso.part")).unwrap() == kept);
}

/// A folder of three files that is fetched, all written and nothing named.
fn written_folder(to: &Path, pieces: Pieces) -> Store {
    let entry = |path: &str, size| FileEntry::new(path, size);
    let list = FileList::new(vec![entry("a", 450), entry("sub/b", 300), entry("z", 250)]).unwrap();
    let list_digest = Some(list.digest());
    let store = Store::fetched(&Fetch {
        folder: to,
        name: "docs",
        id: ID,
        pieces,
        list: list_digest,
        traits: FileAttributes::default(),
        preallocates: false,
    });
    let store = store.unwrap();
    store.lay_out(&list.encode()).unwrap();
    store.keep_list().unwrap();
    all(pieces).for_each(|it| write(&store, it));
    store
}

#[test]
fn what_others_do_to_a_file_of_a_folder_under_way_is_found_before_it_has_its_name() {
    let pieces = pieces(1_000, 100);
    let leaf = |index| Some(leaf_hash(&content(pieces, index)));
    for how in 0..4 {
        let to = tempfile::tempdir().unwrap();
        let store = written_folder(to.path(), pieces);
        let file = to.path().join("docs.part/sub/b");
        let lost: &[u32] = match how {
            0 => {
                fs::remove_file(&file).unwrap();
                &[4, 5, 6, 7]
            }
            1 => {
                disturb(&file, || write_at(&file, b"no", 120));
                &[5]
            }
            2 => {
                let cut = fs::OpenOptions::new().write(true).open(&file).unwrap();
                cut.set_len(200).unwrap();
                &[6, 7]
            }
            _ => {
                disturb(&file, || write_at(&file, b"", 0));
                &[]
            }
        };
        let checked = store.finish(&leaf).unwrap();
        let told: Vec<_> = checked.lost.iter().map(|it| it.0).collect();
        assert_eq!((told, checked.files), (lost.to_vec(), vec!["sub/b".to_owned()]), "{how}");
        assert_eq!(to.path().join("docs").exists(), lost.is_empty(), "{how}");
        if !lost.is_empty() {
            lost.iter().for_each(|it| write(&store, PieceIndex(*it)));
            assert_eq!(store.finish(&leaf).unwrap().lost, []);
        }
        assert!(all(pieces).all(|it| holds(&store, it)), "{how}");
        assert_eq!(fs::read(to.path().join("docs/sub/b")).unwrap().len(), 300);
    }
}

#[test]
fn a_folder_that_was_moved_away_is_missed_and_nothing_is_called_whole() {
    let pieces = pieces(1_000, 100);
    let to = tempfile::tempdir().unwrap();
    let inner = to.path().join("here");
    let store = written_folder(&inner, pieces);
    fs::rename(inner.join("docs.part"), inner.join("mine")).unwrap();
    assert!(matches!(store.finish(&|_| None), Err(ContentStoreError::Moved { .. })));
    fs::rename(inner.join("mine"), inner.join("docs.part")).unwrap();
    fs::rename(&inner, to.path().join("elsewhere")).unwrap();
    assert!(matches!(store.finish(&|_| None), Err(ContentStoreError::Moved { .. })));
    assert!(!to.path().join("elsewhere/docs").exists());
    fs::rename(to.path().join("elsewhere"), &inner).unwrap();
    finish(&store);
    assert!(inner.join("docs/sub/b").exists());
}

#[test]
fn hashes_are_made_anew_although_size_and_time_of_a_file_are_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    fs::write(&path, vec![1; 10_000]).unwrap();
    let cache = TreeCache::new(dir.path().join("cache"));
    let pieces = pieces(10_000, 1_000);
    let hash = || {
        let hashing = Hashing { threads: 1, cache: Some(&cache), progress: &|_| true };
        hashing.leaves(&OfferedFiles::new(&path).unwrap(), pieces).unwrap()
    };
    let first = hash();
    disturb(&path, || write_at(&path, b"other", 5_000));
    let second = hash();
    assert_eq!(second[5], leaf_hash(&fs::read(&path).unwrap()[5_000..6_000]));
    assert_ne!(first[5], second[5]);
}
