//! Opening a store: the library's settings, and the checks that it does not make.

use sled::{Config, Db, Mode};

use super::files::{Acknowledged, Directory, Log};
use super::{EngineError, SledOptions, State, Writer, chunk, contained, failed, verify};

/// A quarter of it is the largest record that the library writes into its log; it can never be changed for a
/// store.
const SEGMENT_BYTES: usize = 2 << 20;
/// How often the library's own thread runs, in milliseconds.
///
/// It alone reclaims space, so it must run, and it empties one segment at a time: at the default of 500 it
/// cannot keep up with 4 MB/s of overwriting. After each it makes the log durable. A segment is used again
/// when two more were begun after its pages were moved, so what was moved is on the device before the place
/// where it stood is overwritten.
const FLUSHER_MILLIS: u64 = 20;

/// Opens or makes a store, ready to serve.
pub(super) fn open(options: &SledOptions) -> Result<Writer, EngineError> {
    let directory = Directory::claim(&options.path)?;
    let acknowledged = directory.acknowledged()?;
    directory.check_settings(acknowledged.newest()? > 0)?;
    if acknowledged.is_closed()? {
        // Before the library opens it, because that writes over what it cannot read.
        verify::refuse_damage(&options.path, SEGMENT_BYTES)?;
        acknowledged.note_closed(0)?;
    } else {
        directory.forget_cached_log()?;
    }
    if !directory.wait_for_release() {
        return Err(EngineError::Refused {
            why: "another program has its log, the file `db`, open".to_owned(),
        });
    }
    let db = library(options).map_err(|error| failed("opening", error))?;
    match ready(&db, &directory, &acknowledged) {
        Ok((log, state)) => {
            Ok(Writer { db, log, acknowledged, directory, state, reserve_bytes: options.reserve_bytes })
        }
        Err(error) => {
            // The library panics when its last sync fails; what failed first is what is told.
            if let Err(second) = contained("closing", move || {
                drop(db);
                Ok(())
            }) {
                tracing::debug!(error = %second, "a store that was not opened was not closed cleanly either");
            }
            Err(error)
        }
    }
}

fn library(options: &SledOptions) -> sled::Result<Db> {
    Config::new()
        .path(&options.path)
        // Without it the library would take a gigabyte, whatever the limit of the control group.
        .cache_capacity(options.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(Some(FLUSHER_MILLIS))
        .mode(Mode::LowSpace)
        .open()
}

fn ready(db: &Db, directory: &Directory, acknowledged: &Acknowledged) -> Result<(Log, State), EngineError> {
    directory.settle()?;
    let log = directory.log()?;
    let state = match read_state(db)? {
        Some(state) => state,
        None => begin(db, &log)?,
    };
    let newest = acknowledged.newest()?;
    if state.commits < newest {
        return Err(rolled_back(state.commits, newest));
    }
    acknowledged.note(state.commits)?;
    acknowledged.make_durable()?;
    Ok((log, state))
}

fn read_state(db: &Db) -> Result<Option<State>, EngineError> {
    if let Some(bytes) = db.get(chunk::STATE_KEY).map_err(|error| failed("reading", error))? {
        return State::from_bytes(&bytes).map(Some);
    }
    match db.first().map_err(|error| failed("reading", error))? {
        None => Ok(None),
        Some(_) => Err(EngineError::Refused { why: "it is a sled database of another program".to_owned() }),
    }
}

fn begin(db: &Db, log: &Log) -> Result<State, EngineError> {
    let mut batch = sled::Batch::default();
    batch.insert(&chunk::STATE_KEY, State::default().to_bytes());
    for fence in chunk::fences() {
        batch.insert(&fence, &[]);
    }
    db.apply_batch(batch).map_err(|error| failed("applying a batch", error))?;
    db.flush().map_err(|error| failed("writing the log", error))?;
    log.make_durable()?;
    Ok(State::default())
}

fn rolled_back(found: u64, acknowledged: u64) -> EngineError {
    let what = format!(
        "the newest commit in its log is {found}, but commit {acknowledged} was acknowledged: the end of the \
         log is damaged, or an older file was put in its place"
    );
    EngineError::Corrupt { what }
}
