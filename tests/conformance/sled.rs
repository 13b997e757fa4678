//! What holds for the embedded engine alone: its directory, its files, and what is wrong with them.
//!
//! Damaged files are opened in a process of their own: after a panic in one of its threads the library is of
//! no use to a process.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strongroom::store::{
    Batch, CommitOutcome, EngineError, Key, Row, ScanRange, SledEngine, SledOptions, StorageEngine,
};

use crate::fixture::{Fixture, key, open, options, ready, row};

const ROWS: u64 = 200;

/// A store of 200 commits, a few of them large.
fn filled(path: &Path) -> Vec<(Key, Row)> {
    let engine = open(path).unwrap();
    let rows: Vec<_> = (1..=ROWS).map(sample).collect();
    for pair in &rows {
        let batch = Batch { put: vec![pair.clone()], ..Batch::default() };
        assert_eq!(ready(engine.commit(batch)).unwrap(), CommitOutcome::Committed);
    }
    ready(engine.close()).unwrap();
    rows
}

fn sample(number: u64) -> (Key, Row) {
    let size = if number.is_multiple_of(20) { 400_000 } else { 700 };
    (key(format!("k{number:04}")), row(number, &vec![number as u8; size]))
}

fn all(engine: &SledEngine) -> Result<Vec<(Key, Row)>, EngineError> {
    ready(engine.scan(ScanRange::prefix(""), usize::MAX))
}

fn corrupt(path: &Path) -> String {
    match open(path) {
        Err(EngineError::Corrupt { what }) => what,
        Ok(_) => panic!("it was opened"),
        Err(other) => panic!("{other:?}"),
    }
}

fn refused(path: &Path) -> String {
    match open(path) {
        Err(EngineError::Refused { why }) => why,
        Ok(_) => panic!("it was opened"),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let rows = filled(directory.path());
    for _ in 0..3 {
        let engine = open(directory.path()).unwrap();
        assert!(all(&engine).unwrap() == rows);
        assert_eq!(ready(engine.stats()).unwrap().rows, ROWS);
    }
}

#[test]
fn the_directory_and_its_files_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("made/by/us");
    drop(open(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&path).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), if file.is_dir() { 0o700 } else { 0o600 }, "{}", file.display());
    }
}

#[test]
fn an_unfinished_snapshot_is_removed_and_nothing_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let rows = filled(directory.path());
    let leftover = directory.path().join("snap.7FFFFFFFFFFFFFFF.generating");
    for content in [&b""[..], b"half a snapshot"] {
        fs::write(&leftover, content).unwrap();
        let engine = open(directory.path()).unwrap();
        assert!(!leftover.exists());
        assert!(all(&engine).unwrap() == rows);
    }
}

/// The library makes its settings without a sync; a power cut during the first start may leave any part of them.
#[test]
fn torn_settings_of_a_first_start_are_made_again() {
    let made = tempfile::tempdir().unwrap();
    drop(open(made.path()).unwrap());
    let settings = fs::read(made.path().join("conf")).unwrap();
    let zeroed = vec![0; settings.len()];
    let torn = (0..settings.len()).map(|end| &settings[..end]).chain([zeroed.as_slice()]);
    for settings in torn {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("conf"), settings).unwrap();
        let rows = filled(directory.path());
        assert!(all(&open(directory.path()).unwrap()).unwrap() == rows);
    }
}

/// The library warns of a wrong checksum, and goes on.
#[test]
fn torn_settings_of_a_store_with_commits_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let path = directory.path().join("conf");
    let settings = fs::read(&path).unwrap();
    for end in 0..settings.len() {
        fs::write(&path, &settings[..end]).unwrap();
        assert_eq!(corrupt(directory.path()), "the settings of the store, the file `conf`");
        assert_eq!(fs::read(&path).unwrap(), settings[..end]);
    }
    fs::write(&path, settings).unwrap();
    drop(open(directory.path()).unwrap());
}

#[test]
fn blobs_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    fs::write(directory.path().join("blobs/1234"), b"a value").unwrap();
    let why = refused(directory.path());
    assert!(why.contains("1 files in `blobs`"), "{why}");
    fs::remove_file(directory.path().join("blobs/1234")).unwrap();
    drop(open(directory.path()).unwrap());
}

/// The library takes 8 pieces of 64 KiB in a leaf for a record that belongs into a blob.
#[test]
fn large_rows_side_by_side_make_no_blob_and_leave_no_chunks() {
    let store = Fixture::sled();
    let path = store.directory.as_ref().unwrap().path().to_owned();
    for number in 1..=30 {
        let rows: Vec<_> =
            (0..20).map(|name| (key(format!("{name:02}")), row(number, &[number as u8; 40_000]))).collect();
        store.put(&rows);
    }
    assert_eq!(fs::read_dir(path.join("blobs")).unwrap().count(), 0);
    // 40,008 bytes are a head and two chunks.
    store.put(&[(key("00"), row(31, &[1; 20_000])), (key("01"), row(31, b"small"))]);
    store.delete(&[key("02")]);
    ready(store.engine.close()).unwrap();
    let raw = ::sled::Config::new().path(&path).segment_size(2 << 20).open().unwrap();
    let tagged = |tag: u8| raw.scan_prefix([tag]).count();
    assert_eq!((tagged(2), tagged(1)), (19, 1 + 17 * 2));
    assert!(raw.scan_prefix([]).all(|item| item.unwrap().1.len() <= (16 << 10) + 4));
}

#[test]
fn a_full_volume_is_told_and_nothing_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let rows = filled(directory.path());
    let options = SledOptions { reserve_bytes: u64::MAX, ..options(directory.path()) };
    let engine = SledEngine::open(&options).unwrap();
    let batch =
        || Batch { put: vec![(key("more"), row(1, b""))], delete: vec![key("k0001")], ..Batch::default() };
    for _ in 0..2 {
        assert!(matches!(ready(engine.commit(batch())), Err(EngineError::Full)));
    }
    assert!(all(&engine).unwrap() == rows);
    drop(engine);
    let engine = open(directory.path()).unwrap();
    assert_eq!(ready(engine.commit(batch())).unwrap(), CommitOutcome::Committed);
}

#[test]
fn a_store_in_use_is_refused_to_this_and_to_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let ours = open(directory.path()).unwrap();
    assert!(refused(directory.path()).contains("another process has"));
    assert_eq!(told(&mut child("open", directory.path())), "refused: another process has it open");
    drop(ours);

    let mut holder = child("hold", directory.path());
    let mut answers = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(answers.any(|line| line.ends_with("CHILD held")));
    assert!(refused(directory.path()).contains("another process has"));
    holder.stdin.take().unwrap().write_all(b"done").unwrap();
    assert!(holder.wait().unwrap().success());
    drop(open(directory.path()).unwrap());
}

#[test]
fn a_store_of_others_is_refused() {
    let foreign = tempfile::tempdir().unwrap();
    let raw = ::sled::Config::new().path(foreign.path()).segment_size(2 << 20).open().unwrap();
    raw.insert("theirs", "value").unwrap();
    drop(raw);
    assert_eq!(refused(foreign.path()), "it is a sled database of another program");

    let newer = tempfile::tempdir().unwrap();
    filled(newer.path());
    let raw = ::sled::Config::new().path(newer.path()).segment_size(2 << 20).open().unwrap();
    raw.insert([0, 0], vec![2; 17]).unwrap();
    drop(raw);
    assert!(refused(newer.path()).contains("version 2 of the engine's layout"));

    let other_size = tempfile::tempdir().unwrap();
    drop(::sled::Config::new().path(other_size.path()).open().unwrap());
    assert!(refused(other_size.path()).contains("io buffer size"));
}

#[test]
fn an_older_log_and_a_missing_log_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = (directory.path(), directory.path().join("db"));
    filled(path);
    let old = fs::read(&log).unwrap();
    let engine = open(path).unwrap();
    for number in 0..10 {
        let batch = Batch { put: vec![(key("k"), row(number + 1, b""))], ..Batch::default() };
        assert_eq!(ready(engine.commit(batch)).unwrap(), CommitOutcome::Committed);
    }
    drop(engine);
    fs::write(&log, old).unwrap();
    let what = corrupt(path);
    assert!(what.contains("newest commit in its log is 200, but commit 210 was acknowledged"), "{what}");
    fs::remove_file(&log).unwrap();
    assert_eq!(corrupt(path), "its log, the file `db`, is missing");
}

/// Whatever is done to the log, opening and reading it either names the damage or finds every row.
#[test]
fn a_damaged_log_is_named_and_nothing_is_lost_quietly() {
    let (fresh, indexed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(fresh.path());
    copy(fresh.path(), indexed.path());
    // The library writes its snapshot when it opens: damage before it shows when a page is read, damage after
    // it when the log is.
    drop(open(indexed.path()).unwrap());
    let length = fs::metadata(fresh.path().join("db")).unwrap().len();
    let seed: u64 = std::process::id().into();
    println!("seed {seed}");
    let mut random = seed;
    let mut place = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 16) % length
    };
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..16 {
        let damaged = tempfile::tempdir().unwrap();
        copy(if round % 2 == 0 { fresh.path() } else { indexed.path() }, damaged.path());
        let log = OpenOptions::new().read(true).write(true).open(damaged.path().join("db")).unwrap();
        let at = if round == 0 { 0 } else { place() };
        let done = if round % 8 < 2 { cut(&log, at) } else { flip(&log, at, round % 3) };
        let outcome = told(&mut child("verify", damaged.path()));
        let named = ["whole", "corrupt: "].iter().any(|start| outcome.starts_with(start));
        assert!(named, "{done}: {outcome}");
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{outcomes:#?}");
    assert!(outcomes.keys().any(|outcome| outcome.starts_with("corrupt")), "{outcomes:?}");
}

/// The library alone would leave out what stands behind the damage in its segment, and say nothing.
#[test]
fn damage_within_a_closed_log_is_named_before_anything_is_overwritten() {
    let (whole, damaged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(whole.path());
    let segments = fs::metadata(whole.path().join("db")).unwrap().len() >> 21;
    assert!(segments >= 3, "{segments} whole segments");
    let mut named = 0;
    for (segment, within) in (0..segments).flat_map(|segment| [(segment, 6), (segment, 100_000)]) {
        copy(whole.path(), damaged.path());
        let log = OpenOptions::new().read(true).write(true).open(damaged.path().join("db")).unwrap();
        flip(&log, (segment << 21) + within, 0);
        let before = fs::read(damaged.path().join("db")).unwrap();
        let said = told(&mut child("verify", damaged.path()));
        assert!(said == "whole" || said.starts_with("corrupt: "), "segment {segment} at {within}: {said}");
        if said.contains("is damaged at offset") {
            named += 1;
            assert!(fs::read(damaged.path().join("db")).unwrap() == before, "the log was changed");
        }
    }
    assert!(named >= segments, "{named} places of {segments} segments");
}

fn flip(log: &File, at: u64, more: u64) -> String {
    let mut bytes = vec![0; 1 << (4 * more)];
    let read = log.read_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    log.write_all_at(&bytes[..read], at).unwrap();
    format!("{read} bytes changed at {at}")
}

fn cut(log: &File, at: u64) -> String {
    log.set_len(at).unwrap();
    format!("cut off at {at}")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Starts this program again for [`other_process`].
fn child(role: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sled::other_process", "--ignored", "--nocapture"])
        .env("STRONGROOM_TEST_ROLE", role)
        .env("STRONGROOM_TEST_STORE", store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child said.
fn told(child: &mut Child) -> String {
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let status = child.wait().unwrap();
    let said = output.lines().find_map(|line| line.split_once("CHILD ")).map(|(_, said)| said.to_owned());
    said.unwrap_or_else(|| format!("nothing, {status}: {output}"))
}

#[test]
#[ignore = "the other process of other tests"]
#[expect(clippy::disallowed_methods, reason = "its parent tells it what to do")]
fn other_process() {
    let (Ok(role), Ok(store)) =
        (std::env::var("STRONGROOM_TEST_ROLE"), std::env::var("STRONGROOM_TEST_STORE"))
    else {
        return;
    };
    std::thread::spawn(|| {
        std::thread::park_timeout(Duration::from_secs(60));
        println!("CHILD hung");
        std::process::exit(1);
    });
    let store = Path::new(&store);
    match role.as_str() {
        "hold" => {
            let _engine = open(store).unwrap();
            println!("CHILD held");
            std::io::stdin().read_exact(&mut [0; 4]).unwrap();
        }
        "open" => println!("CHILD {}", outcome(&open(store).map(|_| "open"), store)),
        _ => println!("CHILD {}", outcome(&open(store).and_then(|engine| verify(&engine)), store)),
    }
}

fn verify(engine: &SledEngine) -> Result<&'static str, EngineError> {
    let (keys, rows): (Vec<_>, Vec<_>) = (1..=ROWS).map(sample).unzip();
    let read = ready(engine.multi_get(&keys))?;
    let same = read.iter().zip(&rows).all(|(read, row)| read.as_ref() == Some(row));
    let scanned = all(engine)?.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    Ok(if same && scanned == rows { "whole" } else { "other rows" })
}

fn outcome(result: &Result<&'static str, EngineError>, store: &Path) -> String {
    match result {
        Ok(said) => (*said).to_owned(),
        Err(EngineError::Refused { why }) => {
            format!("refused: {}", why.replace(store.to_str().unwrap(), "it"))
        }
        Err(EngineError::Corrupt { what }) => format!("corrupt: {}", what.replace('\n', " ")),
        Err(other) => format!("{other:?}"),
    }
}
