//! Writers, each alone in its sessions, and what each may find there after a crash.
//!
//! A writer asks for one change after the other and notes which were acknowledged. As it never asks for a change before the one before it was
//! acknowledged, a crash may leave any beginning of its list that holds all that must be kept, and nothing else: [`Writer::settle`].

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use strongroom::client::{
    Answer, AuditStamp, Bytes, ClientError, CreateSession, Delete, Expect, Owner, Put, Revision,
    SessionHandle, Tenant, View, Write,
};
use tokio::sync::watch;

use crate::books::Revisions;
use crate::trace::Random;

/// How large values are, and how often in hundredths.
pub type Sizes = &'static [(usize, u64)];

/// Sessions that a writer keeps at a time.
const SESSIONS: usize = 3;
/// How often a writer looks for what is there, when answers come too late.
const LATE: u32 = 4;
/// Names of entries and of streams: few, so that they are written again and again.
const ENTRIES: u64 = 10;
const STREAMS: u64 = 2;

/// A value that can be made again from what is noted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    seed: u64,
    length: usize,
}

impl Content {
    fn new(random: &mut Random, sizes: Sizes) -> Self {
        let mut choice = random.below(100);
        let size = sizes.iter().find(|(_, weight)| {
            let taken = choice < *weight;
            choice = choice.saturating_sub(*weight);
            taken
        });
        let length = size.unwrap_or(&sizes[0]).0 + random.below(50) as usize;
        Self { seed: random.next(), length }
    }

    pub fn bytes(self) -> Bytes {
        let mut random = Random::new(self.seed);
        let page: Vec<u8> = (0..128).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut bytes = Vec::with_capacity(self.length + page.len());
        for number in 0..self.length.div_ceil(page.len()) as u64 {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&page[8..]);
        }
        bytes.truncate(self.length);
        bytes.into()
    }
}

/// An entry: its revision, and its content unless it was deleted.
type Entry = (u64, Option<Content>);

/// What is in a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    pub entries: BTreeMap<String, Entry>,
    pub streams: BTreeMap<String, Vec<Content>>,
}

/// A writer's sessions by their handles; `None` is one that was deleted.
pub type State = BTreeMap<String, Option<Session>>;

/// A change that a writer asks for.
#[derive(Debug, Clone)]
pub enum Change {
    Create {
        session: String,
    },
    DeleteSession {
        session: String,
    },
    Put {
        session: String,
        entry: String,
        content: Content,
    },
    Delete {
        session: String,
        entry: String,
        take: bool,
    },
    /// Puts and deletions of different entries.
    Batch {
        session: String,
        writes: Vec<(String, Option<Content>)>,
    },
    Append {
        session: String,
        stream: String,
        events: Vec<Content>,
    },
}

impl Change {
    /// Makes the change in the model.
    fn apply(&self, state: &mut State) {
        let mut within = |session: &String, change: &mut dyn FnMut(&mut Session)| {
            change(state.get_mut(session).and_then(Option::as_mut).expect("the session is live"));
        };
        let write = |session: &mut Session, entry: &String, content: Option<Content>| {
            let slot = session.entries.entry(entry.clone()).or_default();
            *slot = (slot.0 + 1, content);
        };
        match self {
            Self::Create { session } => drop(state.insert(session.clone(), Some(Session::default()))),
            Self::DeleteSession { session } => drop(state.insert(session.clone(), None)),
            Self::Put { session, entry, content } => {
                within(session, &mut |session| write(session, entry, Some(*content)));
            }
            Self::Delete { session, entry, .. } => {
                within(session, &mut |session| write(session, entry, None))
            }
            Self::Batch { session, writes } => within(session, &mut |session| {
                writes.iter().for_each(|(entry, content)| write(session, entry, *content));
            }),
            Self::Append { session, stream, events } => within(session, &mut |session| {
                session.streams.entry(stream.clone()).or_default().extend(events);
            }),
        }
    }
}

/// An acknowledged operation, and what its event in the access log must say.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// Where the trace of the server's files stood at the acknowledgement.
    pub place: u64,
    pub stamp: AuditStamp,
    pub session: String,
    /// For each event of the operation, ending with the stamped one: its type, what it is about, at which revision.
    pub events: Vec<Stamped>,
}

/// What one event must say.
#[derive(Debug, Clone)]
pub struct Stamped {
    pub operation: &'static str,
    /// The domain of the pseudonym, and the name.
    pub resource: Option<(&'static str, String)>,
    pub revision: Option<u64>,
}

impl Stamped {
    fn session(operation: &'static str) -> Self {
        Self { operation, resource: None, revision: None }
    }

    fn entry(operation: &'static str, entry: &str, revision: u64) -> Self {
        Self { operation, resource: Some(("entry", entry.to_owned())), revision: Some(revision) }
    }
}

/// One step of a writer.
#[derive(Debug, Clone)]
struct Step {
    change: Change,
    /// Where the trace stood when it was acknowledged, if it was.
    acknowledged: Option<u64>,
}

/// What one writer did since the last crash, and what stood before that.
#[derive(Clone)]
pub struct Writer {
    name: String,
    random: Random,
    sizes: Sizes,
    owner: Option<Owner>,
    sessions: u64,
    base: State,
    steps: Vec<Step>,
    acknowledged: Vec<Acknowledged>,
    /// Every handle that it ever asked for.
    handles: Vec<String>,
}

/// A server that writers use, and how they learn that they shall end.
#[derive(Clone)]
pub struct Target {
    pub tenant: Tenant,
    /// Counts the acknowledgements of all writers.
    pub acknowledgements: watch::Sender<u64>,
    /// Where the trace of the server's files stands now.
    pub place: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Why a writer stopped.
type Stopped = ClientError;

impl Writer {
    pub fn new(number: u64, seed: u64, sizes: Sizes) -> Self {
        let owner = |subject: &str| {
            Owner::new("https://id.example".into(), "writers".into(), subject.into()).unwrap()
        };
        let name = format!("writer-{number}");
        Self {
            random: Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            sizes,
            owner: number.is_multiple_of(2).then(|| owner(&name)),
            name,
            sessions: 0,
            base: State::new(),
            steps: Vec::new(),
            acknowledged: Vec::new(),
            handles: Vec::new(),
        }
    }

    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// The handles that it ever asked for.
    pub fn handles(&self) -> &[String] {
        &self.handles
    }

    /// Operations that were acknowledged before the trace reached `place`.
    pub fn acknowledged(&self, place: u64) -> impl Iterator<Item = &Acknowledged> {
        self.acknowledged.iter().filter(move |acknowledged| acknowledged.place <= place)
    }

    /// Names of all entries and streams, which are the same for all writers.
    pub fn names() -> (Vec<String>, Vec<String>) {
        ((0..ENTRIES).map(entry_name).collect(), (0..STREAMS).map(stream_name).collect())
    }

    /// Asks for changes, and reads in between, until something fails: the server is gone.
    pub async fn run(&mut self, target: &Target) -> Stopped {
        let mut state = self.base.clone();
        loop {
            let outcome = match self.random.below(6) {
                0 => self.read(&state, target).await,
                _ => self.change(&mut state, target).await,
            };
            match outcome {
                Ok(()) => target.acknowledgements.send_modify(|count| *count += 1),
                Err(stopped) => return stopped,
            }
        }
    }

    async fn change(&mut self, state: &mut State, target: &Target) -> Result<(), Stopped> {
        let change = self.next(state);
        self.steps.push(Step { change: change.clone(), acknowledged: None });
        let mut after = state.clone();
        change.apply(&mut after);
        let (session, stamp, events) = self.ask(&change, state, &after, target).await?;
        self.note(target, session, stamp, events);
        if let Some(step) = self.steps.last_mut() {
            step.acknowledged = Some((target.place)());
        }
        *state = after;
        Ok(())
    }

    fn note(&mut self, target: &Target, session: String, stamp: Option<AuditStamp>, events: Vec<Stamped>) {
        let stamp = stamp.expect("every answer says where its event stands");
        self.acknowledged.push(Acknowledged { place: (target.place)(), stamp, session, events });
    }

    /// The next change, drawn from what is there.
    fn next(&mut self, state: &State) -> Change {
        let live: Vec<&String> = live(state).collect();
        let roll = self.random.below(100);
        if live.len() < SESSIONS && (live.is_empty() || roll < 30) {
            self.sessions += 1;
            let session = format!("{}-{:04}", self.name, self.sessions);
            self.handles.push(session.clone());
            return Change::Create { session };
        }
        let session = live[self.random.below(live.len() as u64) as usize].clone();
        let within = state[&session].as_ref().unwrap();
        match roll {
            // Writer 0 keeps its sessions, so that something is there for as long as the run lasts.
            0..2 if self.sessions > 3 && !self.name.ends_with("-0") => Change::DeleteSession { session },
            0..14 => match self.existing(within) {
                Some(entry) => Change::Delete { session, entry, take: roll.is_multiple_of(2) },
                None => self.put(session),
            },
            14..28 => self.batch(session, within),
            28..55 => {
                let stream = stream_name(self.random.below(STREAMS));
                let events = (0..=self.random.below(3)).map(|_| self.content()).collect();
                Change::Append { session, stream, events }
            }
            _ => self.put(session),
        }
    }

    fn put(&mut self, session: String) -> Change {
        let entry = entry_name(self.random.below(ENTRIES));
        Change::Put { session, entry, content: self.content() }
    }

    fn batch(&mut self, session: String, within: &Session) -> Change {
        let mut writes = BTreeMap::new();
        for _ in 0..2 + self.random.below(4) {
            writes.insert(entry_name(self.random.below(ENTRIES)), Some(self.content()));
        }
        if let Some(entry) = self.existing(within) {
            writes.insert(entry, None);
        }
        Change::Batch { session, writes: writes.into_iter().collect() }
    }

    fn content(&mut self) -> Content {
        Content::new(&mut self.random, self.sizes)
    }

    fn existing(&mut self, session: &Session) -> Option<String> {
        let there: Vec<&String> = session
            .entries
            .iter()
            .filter(|(_, (_, content))| content.is_some())
            .map(|(name, _)| name)
            .collect();
        there.get(self.random.below(there.len() as u64) as usize).map(|name| (*name).clone())
    }

    /// Asks for a change; what its events must say.
    async fn ask(
        &self,
        change: &Change,
        before: &State,
        after: &State,
        target: &Target,
    ) -> Result<(String, Option<AuditStamp>, Vec<Stamped>), Stopped> {
        let at = |session: &String| target.tenant.session(session.as_str(), self.owner.clone());
        let revision = |session: &String, entry: &String| after[session].as_ref().unwrap().entries[entry].0;
        match change {
            Change::Create { session } => {
                let wanted = CreateSession {
                    owner: self.owner.clone(),
                    session_id: Some(session.clone()),
                    ..CreateSession::default()
                };
                let stamp = target.tenant.create_session(wanted).await?.into_parts().1;
                Ok((session.clone(), stamp, vec![Stamped::session("ses.create")]))
            }
            Change::DeleteSession { session } => {
                let stamp = at(session).delete_session().await?.into_parts().1;
                Ok((session.clone(), stamp, vec![Stamped::session("ses.delete")]))
            }
            Change::Put { session, entry, content } => {
                let put = at(session).put(entry, content.bytes()).expect(expectation(before, session, entry));
                let answer = put.await?;
                assert_eq!(answer.revision.get(), revision(session, entry), "the revision of {entry}");
                let stamped = Stamped::entry("ctx.put", entry, answer.revision.get());
                Ok((session.clone(), answer.into_parts().1, vec![stamped]))
            }
            Change::Delete { session, entry, take } => {
                let revision = revision(session, entry);
                let expect = expectation(before, session, entry);
                let (operation, stamp) = if *take {
                    let taken = at(session).take(entry, View::Full).expect(expect).await?;
                    let content = before[session].as_ref().unwrap().entries[entry].1.unwrap();
                    assert!(taken.value == content.bytes(), "{entry} was taken with other bytes");
                    ("ctx.consume", taken.into_parts().1)
                } else {
                    let deleted = at(session).delete(entry).expect(expect).await?;
                    assert_eq!(deleted.get(), revision, "the revision of the deletion of {entry}");
                    ("ctx.delete", deleted.into_parts().1)
                };
                Ok((session.clone(), stamp, vec![Stamped::entry(operation, entry, revision)]))
            }
            Change::Batch { session, writes } => {
                let write = |(entry, content): &(String, Option<Content>)| {
                    let expect = expectation(before, session, entry);
                    match content {
                        Some(content) => Write::from(Put::new(entry, content.bytes()).expect(expect)),
                        None => Write::from(Delete::new(entry).expect(expect)),
                    }
                };
                let answer = at(session).write_batch(writes.iter().map(write)).await?;
                let stamped = |(entry, content): &(String, Option<Content>)| {
                    let operation = if content.is_some() { "ctx.put" } else { "ctx.delete" };
                    Stamped::entry(operation, entry, revision(session, entry))
                };
                Ok((session.clone(), answer.into_parts().1, writes.iter().map(stamped).collect()))
            }
            Change::Append { session, stream, events } => {
                let answer = at(session).append(stream, events.iter().map(|content| content.bytes())).await?;
                assert_eq!(answer.len(), events.len(), "ids of events");
                let resource = Some(("stream", stream.clone()));
                let stamped = Stamped { operation: "evt.append", resource, revision: None };
                Ok((session.clone(), answer.into_parts().1, vec![stamped]))
            }
        }
    }

    /// Reads an entry and compares it.
    async fn read(&mut self, state: &State, target: &Target) -> Result<(), Stopped> {
        let live: Vec<String> = live(state).cloned().collect();
        let Some(session) = live.get(self.random.below(live.len() as u64) as usize) else { return Ok(()) };
        let within = state[session].as_ref().unwrap();
        let handle = target.tenant.session(session.as_str(), self.owner.clone());
        let Some(entry) = self.existing(within) else {
            let (_, stamp) = handle.describe().await?.into_parts();
            self.note(target, session.clone(), stamp, vec![Stamped::session("ses.read")]);
            return Ok(());
        };
        let answer = handle.read(&entry, View::Full).await?;
        let (revision, content) = within.entries[&entry];
        assert_eq!(answer.metadata.revision.get(), revision, "the revision of {entry}");
        assert!(answer.value == content.unwrap().bytes(), "{entry} was read with other bytes");
        let (_, stamp) = answer.into_parts();
        self.note(target, session.clone(), stamp, vec![Stamped::entry("ctx.reveal", &entry, revision)]);
        Ok(())
    }

    /// Finds out what a crash left, and goes on from there: all of it must be a beginning of what was asked for, and hold what was acknowledged
    /// before the trace reached `place`. What no call shows, the revisions of deleted entries, is taken from the books of the same store.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn settle(
        &mut self,
        tenant: &Tenant,
        revisions: &Revisions,
        place: u64,
    ) -> Result<Settled, String> {
        let kept = |step: &Step| step.acknowledged.is_some_and(|acknowledged| acknowledged <= place);
        let demanded = self.steps.iter().rposition(kept).map_or(0, |last| last + 1);
        let mut states = vec![self.base.clone()];
        for step in &self.steps {
            let mut state = states.last().unwrap().clone();
            step.change.apply(&mut state);
            states.push(state);
        }
        let found =
            self.found_in_time(&states, tenant).await.map_err(|error| format!("{}: {error:?}", self.name))?;
        let matching = (demanded..states.len())
            .rev()
            .find(|count| found.is(&states[*count]) && deletions_are(&states[*count], revisions));
        let Some(count) = matching else {
            return Err(self.explain(&states, demanded, &found));
        };
        let settled = Settled { demanded, asked: self.steps.len(), found: count };
        self.base = states.swap_remove(count);
        self.forget_old_deletions();
        self.steps.clear();
        self.acknowledged.clear();
        Ok(settled)
    }

    /// Deleted sessions are asked for once after the crash that followed, a few of them again.
    fn forget_old_deletions(&mut self) {
        let deleted: Vec<String> =
            self.base.iter().filter(|(_, session)| session.is_none()).map(|(name, _)| name.clone()).collect();
        for name in deleted.iter().rev().skip(3) {
            self.base.remove(name);
        }
    }

    /// A machine that is busy with other things may miss a deadline of half a minute; a server that hangs misses them all.
    async fn found_in_time(&self, states: &[State], tenant: &Tenant) -> Result<Found, ClientError> {
        for attempt in 1..LATE {
            match self.found(states, tenant).await {
                Err(error) if error.is_deadline_exceeded() => {
                    println!("{}: attempt {attempt} to look for what is there: {error}", self.name);
                }
                found => return found,
            }
        }
        self.found(states, tenant).await
    }

    async fn found(&self, states: &[State], tenant: &Tenant) -> Result<Found, ClientError> {
        let last = states.last().unwrap();
        let names: Vec<&String> = last.keys().collect();
        let sessions = futures_util::stream::iter(names)
            .map(|name| async move {
                let handle = tenant.session(name.as_str(), self.owner.clone());
                Ok::<_, ClientError>((name.clone(), found_session(&handle).await?))
            })
            .buffered(4);
        Ok(Found(sessions.try_collect().await?))
    }

    fn explain(&self, states: &[State], demanded: usize, found: &Found) -> String {
        let mut text = format!(
            "{}: of {} changes {demanded} must be there, and what is there is the state after none of them",
            self.name,
            self.steps.len()
        );
        for (count, state) in states.iter().enumerate().skip(demanded).take(2) {
            let change = self.steps.get(count.wrapping_sub(1)).map(|step| &step.change);
            text.push_str(&format!("\n  after {count} ({change:?}): {}", found.difference(state)));
        }
        text
    }
}

/// What [`Writer::settle`] found: of the changes that were asked for, so many must be there, and so many are.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    pub demanded: usize,
    pub asked: usize,
    pub found: usize,
}

/// What is in a session according to the server: entries with revision and value, events.
#[derive(Debug, Default)]
struct FoundSession {
    entries: BTreeMap<String, (u64, Bytes)>,
    streams: BTreeMap<String, Vec<Bytes>>,
}

struct Found(BTreeMap<String, Option<FoundSession>>);

impl Found {
    fn is(&self, state: &State) -> bool {
        self.first_difference(state).is_none()
    }

    fn difference(&self, state: &State) -> String {
        self.first_difference(state).unwrap_or_else(|| "no difference".to_owned())
    }

    fn first_difference(&self, state: &State) -> Option<String> {
        self.0.iter().find_map(|(name, found)| {
            let expected = state.get(name).and_then(Option::as_ref);
            match (found, expected) {
                (None, None) => None,
                (Some(_), None) => Some(format!("{name} is there")),
                (None, Some(_)) => Some(format!("{name} is not there")),
                (Some(found), Some(expected)) => {
                    found.difference(expected).map(|what| format!("{name}: {what}"))
                }
            }
        })
    }
}

impl FoundSession {
    fn difference(&self, expected: &Session) -> Option<String> {
        let live = expected
            .entries
            .iter()
            .filter_map(|(name, (revision, content))| content.map(|content| (name, (*revision, content))));
        let live: BTreeMap<_, _> = live.collect();
        if let Some(added) = self.entries.keys().find(|name| !live.contains_key(name)) {
            return Some(format!("{added} is there at revision {}", self.entries[added].0));
        }
        for (name, (revision, content)) in live {
            match self.entries.get(name) {
                None => return Some(format!("{name} is not there, revision {revision} expected")),
                Some((found, _)) if *found != revision => {
                    return Some(format!("{name} has revision {found} instead of {revision}"));
                }
                Some((_, value)) if *value != content.bytes() => {
                    return Some(format!("{name} has other bytes"));
                }
                Some(_) => {}
            }
        }
        for name in Writer::names().1 {
            let expected = expected.streams.get(&name).map(Vec::as_slice).unwrap_or_default();
            let found = self.streams.get(&name).map(Vec::as_slice).unwrap_or_default();
            if found.len() != expected.len() {
                return Some(format!("{name} has {} events instead of {}", found.len(), expected.len()));
            }
            if found.iter().zip(expected).any(|(found, expected)| *found != expected.bytes()) {
                return Some(format!("{name} has other bytes"));
            }
        }
        None
    }
}

async fn found_session(session: &SessionHandle) -> Result<Option<FoundSession>, ClientError> {
    match session.describe().await {
        Ok(_) => {}
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut found = FoundSession::default();
    let listed: Vec<_> = session.entries().try_collect().await?;
    for entry in listed {
        let read = session.read(&entry.key, View::Full).await.map(Answer::into_inner)?;
        assert_eq!(read.metadata.revision, entry.revision, "listed and read revision of {}", entry.key);
        found.entries.insert(entry.key, (read.metadata.revision.get(), read.value));
    }
    for stream in Writer::names().1 {
        let events: Vec<_> = session.events(&stream, View::Full).replay().try_collect().await?;
        found.streams.insert(stream, events.into_iter().map(|event| event.bytes).collect());
    }
    Ok(Some(found))
}

/// Whether deleted entries have the revisions that the books name.
fn deletions_are(state: &State, revisions: &Revisions) -> bool {
    let sessions = state.iter().filter_map(|(handle, session)| Some((handle, session.as_ref()?)));
    let mut entries =
        sessions.flat_map(|(handle, session)| session.entries.iter().map(move |entry| (handle, entry)));
    entries.all(|(handle, (name, (revision, content)))| {
        content.is_some() || revisions.get(&(handle.clone(), name.clone())) == Some(revision)
    })
}

fn expectation(state: &State, session: &str, entry: &str) -> Expect {
    match state[session].as_ref().and_then(|session| session.entries.get(entry)) {
        Some((revision, Some(_))) => Expect::Revision(Revision::new(*revision).unwrap()),
        Some((_, None)) | None => Expect::Absent,
    }
}

fn live(state: &State) -> impl Iterator<Item = &String> {
    state.iter().filter(|(_, session)| session.is_some()).map(|(name, _)| name)
}

fn entry_name(number: u64) -> String {
    format!("entry-{number}")
}

fn stream_name(number: u64) -> String {
    format!("stream-{number}")
}
