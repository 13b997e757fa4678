//! The access logs of a store that no server has open, held against its rows and against what was acknowledged.
//!
//! [`Books::audit`] opens the store in this process, with the keys of dev mode, and checks that
//! - every log verifies: its head is what follows from its lines, and what was there at the last audit is a beginning of it;
//! - every acknowledged operation has its events, where the answer said, with the right session, owner, name and revision;
//! - the revisions that the events of an entry name are 1, 2, 3 …: none is missing and none comes back;
//! - every row of a session is what its newest event says (`ch` is the SHA-256 of the stored bytes), and no row is without one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_json::Value;
use strongroom::audit::{Filter, Frontier, LogKeys, LogReader, Order, leaf_hash};
use strongroom::client::Owner;
use strongroom::crypto::content_hash;
use strongroom::env::SystemEntropy;
use strongroom::keyring::{KeyFile, Keyring, Tenant};
use strongroom::model::{TenantRef, Timestamp};
use strongroom::store::{
    Key, Row, ScanRange, SessionPart, SledEngine, SledOptions, StorageEngine, Table, keys,
};

use crate::workload::{Acknowledged, Writer};

/// Lines of a log that are read at a time.
const PAGE: usize = 1000;

/// What the audits of one store have seen so far.
#[derive(Clone, Default)]
pub struct Books {
    tenant: ReadLog,
    system: ReadLog,
    /// By the pseudonym of its handle, every session that a writer ever asked for.
    sessions: HashMap<String, SessionNames>,
    /// How many handles of each writer are among them.
    known: Vec<usize>,
    /// By session and resource, what the newest event says.
    newest: HashMap<(String, String), Newest>,
    live: HashSet<String>,
    /// Sessions that were deleted, by the blinded handle: their rows go by and by.
    ended: HashSet<Vec<u8>>,
    /// Handles of sessions that were deleted since the last audit.
    ending: Vec<String>,
    revisions: Revisions,
}

/// By session and entry, the revision that the newest event names; of entries that were deleted, too, whose revisions no call shows.
pub type Revisions = BTreeMap<(String, String), u64>;

/// How far a log was read.
#[derive(Clone, Default)]
struct ReadLog {
    frontier: Frontier,
}

#[derive(Clone)]
struct SessionNames {
    handle: String,
    owner: Option<String>,
}

/// What the newest event about an entry or a stream says.
#[derive(Clone)]
struct Newest {
    revision: u64,
    /// SHA-256 of the row; none for an entry that was deleted.
    hash: Option<String>,
    /// Events of a stream so far.
    items: u64,
}

/// What an audit has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Events in the tenant's log.
    pub events: u64,
    /// Those that were new.
    pub new: u64,
    /// Acknowledged operations whose events were found.
    pub acknowledged: u64,
    /// Rows that were held against their events.
    pub rows: u64,
}

/// A store that is open in this process.
struct Store {
    engine: Arc<dyn StorageEngine>,
    reader: LogReader,
    tenant: Arc<Tenant>,
    tenant_log: LogKeys,
    system_log: LogKeys,
}

impl Books {
    /// Opens the store of the dev server in `directory` with the root key in `root_key`, checks it, and closes it. Operations count that were
    /// acknowledged before the trace reached `place`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn audit(
        &mut self,
        store: &Path,
        root_key: &Path,
        writers: &[Writer],
        place: u64,
    ) -> Result<Figures, String> {
        let Some(store) = Store::open(store, root_key).await? else {
            let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged(place).count()).sum();
            let none = self.tenant.frontier.size() == 0 && acknowledged == 0;
            return if none { Ok(Figures::default()) } else { Err("the tenant is gone".to_owned()) };
        };
        let checked = self.check(&store, writers, place).await;
        store.engine.close().await.map_err(|error| format!("not closed: {error}"))?;
        checked
    }

    /// The revisions of all entries of sessions that live, as of the last audit.
    pub fn revisions(&self) -> &Revisions {
        &self.revisions
    }

    async fn check(&mut self, store: &Store, writers: &[Writer], place: u64) -> Result<Figures, String> {
        self.learn(store, writers);
        self.system.read(store, &store.system_log).await?;
        let lines = self.tenant.read(store, &store.tenant_log).await?;
        for (sequence, line) in &lines {
            self.enter(line).map_err(|what| format!("event {sequence}: {what}: {line}"))?;
        }
        let mut figures =
            Figures { events: self.tenant.frontier.size(), new: lines.len() as u64, ..Figures::default() };
        let log = store.tenant_log.name().to_string();
        for acknowledged in writers.iter().flat_map(|writer| writer.acknowledged(place)) {
            is_entered(&lines, &log, store, acknowledged)?;
            figures.acknowledged += 1;
        }
        figures.rows = self.compare(store).await?;
        Ok(figures)
    }

    /// Takes up the sessions that writers asked for since the last audit.
    fn learn(&mut self, store: &Store, writers: &[Writer]) {
        self.known.resize(writers.len(), 0);
        for (writer, known) in writers.iter().zip(&mut self.known) {
            let owner = writer.owner().map(|owner| store.owner(owner));
            for handle in &writer.handles()[*known..] {
                let names = SessionNames { handle: handle.clone(), owner: owner.clone() };
                self.sessions.insert(store.name("session", handle), names);
            }
            *known = writer.handles().len();
        }
    }

    /// Takes up what a line says was done.
    fn enter(&mut self, line: &Value) -> Result<(), String> {
        let operation = text(line, "typ");
        let changes = matches!(
            operation,
            "ses.create" | "ses.delete" | "ctx.put" | "ctx.delete" | "ctx.consume" | "evt.append"
        );
        if text(line, "out") != "ok" || !changes {
            return Ok(());
        }
        let session = text(line, "sid").to_owned();
        let names = self.sessions.get(&session).ok_or("nobody asked for this session")?;
        if names.owner.as_deref() != line.get("own").and_then(Value::as_str) {
            return Err("it has another owner".to_owned());
        }
        match operation {
            "ses.create" => self.live.insert(session).then_some(()).ok_or("it was created before".to_owned()),
            _ if !self.live.contains(&session) => Err("the session is not there".to_owned()),
            "ses.delete" => {
                self.live.remove(&session);
                self.ending.push(names.handle.clone());
                self.newest.retain(|(of, _), _| *of != session);
                Ok(())
            }
            _ => self.enter_change(session, line),
        }
    }

    fn enter_change(&mut self, session: String, line: &Value) -> Result<(), String> {
        let resource = line.pointer("/res/kp").and_then(Value::as_str).ok_or("it names nothing")?.to_owned();
        let revision = line.pointer("/res/ver").and_then(Value::as_u64).ok_or("it names no revision")?;
        let hash = line.get("ch").and_then(Value::as_str).map(str::to_owned);
        let items = line.pointer("/res/n").and_then(Value::as_u64).unwrap_or_default();
        let known =
            self.newest.entry((session, resource)).or_insert(Newest { revision: 0, hash: None, items: 0 });
        if revision != known.revision + 1 {
            return Err(format!("revision {revision} follows {}", known.revision));
        }
        *known = Newest { revision, hash, items: known.items + items };
        Ok(())
    }

    /// Holds all rows of the tenant's sessions against the newest events; how many there were.
    async fn compare(&mut self, store: &Store) -> Result<u64, String> {
        let (mut expected, live) = self.expected(store);
        let ending = std::mem::take(&mut self.ending);
        self.ended.extend(ending.iter().map(|handle| store.blind("session", handle).to_vec()));
        let rows = store.rows(keys::tenant_sessions(store.tenant.tenant_ref().id)).await?;
        let mut compared = 0;
        let mut events = HashMap::<Vec<u8>, u64>::new();
        for (key, row) in rows.iter().filter(|(key, _)| !self.ended.contains(key.session())) {
            compared += 1;
            let part = key.within_session();
            if !live.contains(key.session()) {
                return Err(format!("{key:?} is of a session that no event created"));
            }
            match part.first() {
                Some(root) if *root == SessionPart::Root as u8 => {}
                Some(event) if *event == SessionPart::Event as u8 => {
                    let stream = [key.session(), &part[1..17]].concat();
                    *events.entry(stream).or_default() += 1;
                }
                _ => {
                    let newest =
                        expected.remove(key).ok_or_else(|| format!("{key:?} is there without an event"))?;
                    is_as_entered(row, &newest).map_err(|what| format!("{key:?}: {what}"))?;
                }
            }
        }
        if let Some((key, newest)) = expected.iter().next() {
            return Err(format!("{key:?} is not there at revision {}, as its event says", newest.revision));
        }
        self.compare_counts(store, &events)?;
        Ok(compared)
    }

    /// The rows that there must be, by the newest events, and the blinded handles of live sessions.
    fn expected(&mut self, store: &Store) -> (BTreeMap<Key, Newest>, HashSet<Vec<u8>>) {
        let (entries, streams) = Writer::names();
        let mut expected = BTreeMap::new();
        let mut live = HashSet::new();
        self.revisions.clear();
        for session in &self.live {
            let handle = &self.sessions[session].handle;
            let id = store.blind("session", handle);
            live.insert(id.to_vec());
            let mut expect = |key: Key, domain: &'static str, name: &str| {
                if let Some(newest) = self.newest.get(&(session.clone(), store.name(domain, name))) {
                    expected.insert(key, newest.clone());
                    self.revisions.insert((handle.clone(), name.to_owned()), newest.revision);
                }
            };
            let tenant = store.tenant.tenant_ref().id;
            for name in &entries {
                expect(keys::entry(tenant, &id, &store.blind("entry", name)), "entry", name);
            }
            for name in &streams {
                expect(keys::stream(tenant, &id, &store.blind("stream", name)), "stream", name);
            }
        }
        (expected, live)
    }

    /// Every stream has as many events as its appends said.
    fn compare_counts(&self, store: &Store, found: &HashMap<Vec<u8>, u64>) -> Result<(), String> {
        for session in &self.live {
            let id = store.blind("session", &self.sessions[session].handle);
            for name in Writer::names().1 {
                let stream = [&id[..], &store.blind("stream", &name)].concat();
                let newest = self.newest.get(&(session.clone(), store.name("stream", &name)));
                let (said, found) = (newest.map_or(0, |newest| newest.items), found.get(&stream).copied());
                if found.unwrap_or_default() != said {
                    let handle = &self.sessions[session].handle;
                    return Err(format!("{name} of {handle} has {found:?} events, and {said} were appended"));
                }
            }
        }
        Ok(())
    }
}

fn is_as_entered(row: &Row, newest: &Newest) -> Result<(), String> {
    let revision = row.revision().map_err(|error| error.to_string())?.get();
    if revision != newest.revision {
        return Err(format!("revision {revision}, and the newest event says {}", newest.revision));
    }
    match &newest.hash {
        Some(hash) if *hash != HEXLOWER.encode(&content_hash(row.as_bytes())) => {
            Err(format!("other bytes than the event of revision {revision} says"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether an acknowledged operation is in the log as it was acknowledged.
fn is_entered(
    lines: &BTreeMap<u64, Value>,
    log: &str,
    store: &Store,
    acknowledged: &Acknowledged,
) -> Result<(), String> {
    let stamp = &acknowledged.stamp;
    if stamp.log != log {
        return Err(format!("an event was said to stand in {}", stamp.log));
    }
    let first = stamp.sequence + 1 - acknowledged.events.len() as u64;
    for (sequence, event) in (first..).zip(&acknowledged.events) {
        let missing = || format!("acknowledged {event:?} is not in the log at {sequence}");
        let line = lines.get(&sequence).ok_or_else(missing)?;
        let name = event.resource.as_ref().map(|(domain, name)| store.name(domain, name));
        let revision = line.pointer("/res/ver").and_then(Value::as_u64);
        let same = text(line, "typ") == event.operation
            && text(line, "out") == "ok"
            && text(line, "sid") == store.name("session", &acknowledged.session)
            && line.pointer("/res/kp").and_then(Value::as_str) == name.as_deref()
            && (event.revision.is_none() || revision == event.revision);
        if !same {
            return Err(format!("{}; there is {line}", missing()));
        }
    }
    Ok(())
}

impl ReadLog {
    /// Reads the lines that are new, and verifies the whole log.
    async fn read(&mut self, store: &Store, log: &LogKeys) -> Result<BTreeMap<u64, Value>, String> {
        let name = log.name();
        let failed = |error: strongroom::audit::LogError| format!("{name}: {error}");
        let verified = store.reader.verify(log).await.map_err(failed)?;
        if verified.size < self.frontier.size() {
            return Err(format!("{name} has {} events, and had {}", verified.size, self.frontier.size()));
        }
        let mut lines = BTreeMap::new();
        while self.frontier.size() < verified.size {
            let from = Some(self.frontier.size());
            let page = store.reader.search(log, from, Order::OldestFirst, &Filter::ALL, PAGE).await;
            for line in page.map_err(failed)?.lines {
                self.frontier.append(leaf_hash(line.line.as_bytes()));
                lines.insert(
                    line.sequence,
                    serde_json::from_str(&line.line).map_err(|error| error.to_string())?,
                );
            }
        }
        // Its lines up to the last audit are known by the frontier alone: another line among them gives another root.
        if self.frontier.root() != verified.root {
            return Err(format!("{name} is not the continuation of what it was"));
        }
        Ok(lines)
    }
}

impl Store {
    /// Opens a store; `None` when it has no tenant yet.
    async fn open(path: &Path, root_key: &Path) -> Result<Option<Self>, String> {
        let options = SledOptions { cache_bytes: 32 << 20, reserve_bytes: 1 << 20, ..SledOptions::new(path) };
        let engine: Arc<dyn StorageEngine> =
            Arc::new(SledEngine::open(&options).map_err(|error| format!("the store: {error}"))?);
        let entropy = Arc::new(SystemEntropy::new());
        let provider = KeyFile::open(root_key, Arc::<SystemEntropy>::clone(&entropy))
            .map_err(|error| format!("the root key: {error}"))?;
        let keyring = Keyring::open(&*engine, &provider, &[], entropy, Timestamp::default()).await;
        let keyring = keyring.map_err(|error| format!("the keys: {error}"))?;
        let rows = scan(&*engine, keys::table(Table::Tenant)).await?;
        let [(key, row)] = rows.as_slice() else {
            engine.close().await.map_err(|error| error.to_string())?;
            return if rows.is_empty() { Ok(None) } else { Err(format!("{} tenants", rows.len())) };
        };
        let tenant = keyring.open_tenant(key, row).map_err(|error| format!("the tenant: {error}"))?;
        let system = keyring.system();
        let log = |tenant, epoch, audit: &Arc<_>, pseudonym: &Arc<_>, pseudonym_version| LogKeys {
            store: keyring.store_id(),
            tenant,
            epoch,
            audit: Arc::clone(audit),
            pseudonym: Arc::clone(pseudonym),
            pseudonym_version,
        };
        Ok(Some(Self {
            reader: LogReader::new(Arc::clone(&engine)),
            tenant_log: log(
                tenant.tenant_ref(),
                tenant.audit_epoch(),
                tenant.audit(),
                tenant.pseudonym(),
                tenant.pseudonym_version(),
            ),
            system_log: log(
                TenantRef::SYSTEM,
                system.audit_epoch(),
                system.audit(),
                system.pseudonym(),
                system.pseudonym_version(),
            ),
            engine,
            tenant,
        }))
    }

    fn name(&self, domain: &'static str, name: &str) -> String {
        self.tenant_log.pseudonym(domain, &[name.as_bytes()]).to_string()
    }

    fn owner(&self, owner: &Owner) -> String {
        let parts = [owner.issuer().as_bytes(), owner.client_id().as_bytes(), owner.subject().as_bytes()];
        self.tenant_log.pseudonym("owner", &parts).to_string()
    }

    fn blind(&self, domain: &'static str, name: &str) -> [u8; 16] {
        self.tenant.index().blind(domain, &[name.as_bytes()])
    }

    async fn rows(&self, prefix: Vec<u8>) -> Result<Vec<(Key, Row)>, String> {
        scan(&*self.engine, prefix).await
    }
}

async fn scan(engine: &dyn StorageEngine, prefix: Vec<u8>) -> Result<Vec<(Key, Row)>, String> {
    engine.scan(ScanRange::prefix(prefix), usize::MAX).await.map_err(|error| format!("a scan: {error}"))
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}
