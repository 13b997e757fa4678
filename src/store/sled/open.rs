//! Opening a store: the library's settings, and the checks that it does not make.

use sled::{Config, Db, Mode};

use super::files::Directory;
use super::{EngineError, SledOptions, State, Writer, chunk, failed};

/// A quarter of it is the largest record that the library writes into its log; it can never be changed for a store.
const SEGMENT_BYTES: usize = 2 << 20;
/// How often the library's own thread runs, in milliseconds.
///
/// It alone reclaims space, so it must run. It moves pages for half of this time and makes the log durable after that; a segment is used
/// again when two more were begun after its pages were moved. In 10 ms it cannot write two segments, so what it moved is on the device
/// before the place where it was is overwritten.
const FLUSHER_MILLIS: u64 = 20;

/// Opens or makes a store, ready to serve.
pub(super) fn open(options: &SledOptions) -> Result<Writer, EngineError> {
    let directory = Directory::claim(&options.path)?;
    let db = Config::new()
        .path(&options.path)
        // Without it the library would take a gigabyte, whatever the limit of the control group.
        .cache_capacity(options.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(Some(FLUSHER_MILLIS))
        .mode(Mode::LowSpace)
        .open()
        .map_err(|error| failed("opening", error))?;
    let acknowledged = directory.acknowledged()?;
    directory.settle()?;
    let state = read_state(&db)?.unwrap_or_default();
    let newest = acknowledged.newest()?;
    if state.commits < newest {
        return Err(rolled_back(state.commits, newest));
    }
    let log = directory.log()?;
    let writer = Writer { db, log, acknowledged, directory, state, reserve_bytes: options.reserve_bytes };
    if state == State::default() {
        begin(&writer)?;
    }
    writer.acknowledged.note(state.commits)?;
    writer.acknowledged.make_durable()?;
    Ok(writer)
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

fn begin(writer: &Writer) -> Result<(), EngineError> {
    let mut batch = sled::Batch::default();
    batch.insert(&chunk::STATE_KEY, writer.state.to_bytes());
    for fence in chunk::fences() {
        batch.insert(&fence, &[]);
    }
    writer.db.apply_batch(batch).map_err(|error| failed("applying a batch", error))?;
    writer.make_durable()
}

fn rolled_back(found: u64, acknowledged: u64) -> EngineError {
    let what = format!(
        "the newest commit in its log is {found}, but commit {acknowledged} was acknowledged: the end of the log is damaged, or an \
         older file was put in its place"
    );
    EngineError::Corrupt { what }
}
