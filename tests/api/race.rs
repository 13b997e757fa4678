//! Rotation, promotion, disabling, rewrapping and destruction of keys, against sessions that are created and written at the same
//! time, in orders that differ with every seed.
//!
//! `STRONGROOM_RACE_ROUNDS` sets how many seeds there are, `STRONGROOM_RACE_SEED` the first of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strongroom::keyring::Keyring;
use strongroom::model::{KekState as State, KekVersion};
use strongroom::proto::v1;
use strongroom::store::{Effect, Fault, Hook, Operation, Table};
use tokio::task::JoinHandle;

use crate::requests::{create, new_put, put_of, read, seconds};
use crate::site::Site;
use crate::support::{Inside, soon};

const CREATORS: u64 = 4;
const SESSIONS: usize = 6;
const CHANGES: usize = 12;

/// Numbers that look random, for one seed.
struct Dice(AtomicU64);

impl Dice {
    fn of(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// Has every read and every commit take a while, so that others come in between.
fn slow_down(site: &Site, dice: &Arc<Dice>) {
    for operation in [Operation::MultiGet, Operation::Scan, Operation::Commit] {
        let dice = Arc::clone(dice);
        let hook: Hook = Arc::new(move |_| {
            let turns = dice.below(12);
            Box::pin(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            })
        });
        site.world().engine.inject(Fault { operation, number: None, effect: Effect::Wait(hook) });
    }
}

fn reason(status: &tonic::Status) -> String {
    crate::support::Refusal::of(status).reason
}

/// A session that was acknowledged, with the value that was, if one was.
type Made = (v1::SessionRef, Option<String>);

/// Creates sessions and writes to them; returns those that were acknowledged.
async fn creator(site: Arc<Site>, number: u64) -> Vec<Made> {
    let mut made = Vec::new();
    for turn in 0..SESSIONS {
        let mut app = site.app();
        let answer = app.create_session(create(&site.tenant)).await.unwrap().into_inner();
        let session_id = answer.session.unwrap().session_id;
        let session = v1::SessionRef { tenant: site.tenant.clone(), session_id, owner: None };
        let value = format!("{number}/{turn}");
        let kept = match app.put_entry(put_of(&session, new_put("key", value.as_str()))).await {
            Ok(_) => Some(value),
            Err(refused) => {
                let why = reason(&refused);
                assert!(["KEY_DISABLED", "KEY_DESTROYED", "UNAVAILABLE"].contains(&why.as_str()), "{why}");
                None
            }
        };
        made.push((session, kept));
    }
    made
}

/// Changes keys at random; returns how many sessions it was told to have killed.
async fn keeper(site: Arc<Site>, dice: Arc<Dice>) -> u64 {
    let (mut admin, tenant, mut killed) = (site.admin(), || site.tenant.clone(), 0);
    for _ in 0..CHANGES {
        let version = u32::try_from(1 + dice.below(4)).unwrap();
        let outcome = match dice.below(6) {
            0 | 1 => admin
                .rotate_kek(v1::RotateKekRequest { tenant: tenant(), ..Default::default() })
                .await
                .map(|_| ()),
            2 => admin
                .promote_kek(v1::PromoteKekRequest { tenant: tenant(), version, ..Default::default() })
                .await
                .map(|_| ()),
            3 => admin
                .disable_kek(v1::DisableKekRequest { tenant: tenant(), version, ..Default::default() })
                .await
                .map(|_| ()),
            4 => admin
                .enable_kek(v1::EnableKekRequest { tenant: tenant(), version, ..Default::default() })
                .await
                .map(|_| ()),
            _ => destroy(&mut admin, tenant(), version).await.map(|sessions| killed += sessions),
        };
        if let Err(refused) = outcome {
            let why = reason(&refused);
            let usual = ["KEY_STATE", "KEY_NOT_FOUND", "KEY_IN_USE", "UNAVAILABLE"];
            assert!(usual.contains(&why.as_str()), "{why}: {refused:?}");
        }
    }
    killed
}

/// Destroys a version at once, with as many sessions as a dry run finds.
async fn destroy(
    admin: &mut crate::support::Control,
    tenant: String,
    version: u32,
) -> Result<u64, tonic::Status> {
    let request = v1::DestroyKekRequest { tenant, version, grace: Some(seconds(0)), ..Default::default() };
    let dry = v1::DestroyKekRequest { dry_run: true, ..request.clone() };
    let expect_sessions = admin.destroy_kek(dry).await?.into_inner().sessions;
    let destroyed = admin.destroy_kek(v1::DestroyKekRequest { expect_sessions, ..request }).await?;
    assert_eq!(destroyed.into_inner().sessions, expect_sessions);
    Ok(expect_sessions)
}

/// Begins new root epochs and rolls the old ones, over and over.
async fn roller(site: Arc<Site>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        // While one is being rolled another is refused, and a lost race is no harm.
        drop(site.admin().rotate_root(v1::RotateRootRequest::default()).await);
        drop(site.world().service.roll_step().await);
        tokio::task::yield_now().await;
    }
}

/// Has rewraps done, over and over.
async fn rewrapper(site: Arc<Site>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        start_rewrap(&site).await;
        drop(site.world().jobs.round().await);
        tokio::task::yield_now().await;
    }
}

/// Asks for rewraps, which a server process does by itself, over and over.
async fn starter(site: Arc<Site>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        start_rewrap(&site).await;
    }
}

async fn start_rewrap(site: &Site) {
    let (tenant, kind) = (site.tenant.clone(), v1::JobKind::Rewrap.into());
    // One may be at work already, and a lost race is no harm.
    drop(site.admin().start_job(v1::StartJobRequest { tenant, kind, ..Default::default() }).await);
}

/// What the rows say: sessions by the version that they name, and the state of each version.
async fn found(inside: &Inside) -> (BTreeMap<KekVersion, u64>, BTreeMap<KekVersion, State>) {
    let (mut sessions, mut states) = (BTreeMap::new(), BTreeMap::new());
    for (key, row) in inside.rows().await {
        if key.as_bytes()[0] == Table::Tenant as u8 {
            let tenant = inside.keyring.open_tenant(&key, &row).unwrap();
            states.extend(tenant.keks().iter().map(|kek| (kek.version, kek.state)));
        } else if key.as_bytes()[0] == Table::Session as u8 && key.within_session() == [0] {
            let [body, sensitive, _] = row.exactly().unwrap();
            let version = Keyring::wrapping_version(body).unwrap();
            assert_eq!(Keyring::wrapping_version(sensitive), Some(version));
            *sessions.entry(version).or_default() += 1;
        }
    }
    (sessions, states)
}

/// Who works beside those who create and the one who changes keys, until told to stop.
#[derive(Default)]
struct Others {
    stop: Arc<AtomicBool>,
    working: Vec<JoinHandle<()>>,
}

impl Others {
    fn add<F: Future<Output = ()> + Send + 'static>(&mut self, work: impl FnOnce(Arc<AtomicBool>) -> F) {
        self.working.push(tokio::spawn(work(Arc::clone(&self.stop))));
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for working in self.working {
            working.await.unwrap();
        }
    }
}

/// Has all of them work at the same time; returns what was made, and how many of these were said to have died.
async fn contend(site: &Arc<Site>, dice: Arc<Dice>, others: Others) -> (Vec<Made>, u64) {
    let keeping = tokio::spawn(keeper(Arc::clone(site), dice));
    let creating: Vec<_> =
        (0..CREATORS).map(|number| tokio::spawn(creator(Arc::clone(site), number))).collect();
    let mut made = Vec::new();
    for creating in creating {
        made.extend(creating.await.unwrap());
    }
    let killed = keeping.await.unwrap();
    others.end().await;
    (made, killed)
}

async fn race(seed: u64) {
    let site = Arc::new(Site::within(Inside::open_seeded(seed).await));
    let dice = Dice::of(seed);
    slow_down(&site, &dice);
    let (mut others, rewraps) = (Others::default(), seed % 2 == 1);
    if seed.is_multiple_of(3) {
        others.add(|stop| roller(Arc::clone(&site), stop));
    }
    if rewraps {
        others.add(|stop| rewrapper(Arc::clone(&site), stop));
    }
    let (made, killed) = contend(&site, dice, others).await;

    let (sessions, states) = found(site.world()).await;
    assert_eq!(sessions.values().sum::<u64>(), made.len() as u64, "seed {seed}");
    let dead = |version: &KekVersion| states[version] == State::Destroyed;
    let lost: u64 = sessions.iter().filter(|(version, _)| dead(version)).map(|(_, count)| count).sum();
    // A rewrap may save some between the count and the end of the version.
    assert!(
        lost == killed || rewraps && lost < killed,
        "seed {seed}: {lost} of {killed}, {sessions:?} {states:?}"
    );
    assert!(
        states.iter().all(|(version, state)| *state != State::Pending || !sessions.contains_key(version))
    );
    assert_eq!(gone(&site, &made, seed).await, lost, "seed {seed}");
}

/// The same with a server process, and what it says of itself.
async fn race_with_a_process(seed: u64) {
    let site = Arc::new(Site::outside().await);
    let (mut others, rewraps) = (Others::default(), seed % 2 == 1);
    if rewraps {
        others.add(|stop| starter(Arc::clone(&site), stop));
    }
    let (made, killed) = contend(&site, Dice::of(seed), others).await;

    let count = v1::CountKekUseRequest { tenant: site.tenant.clone() };
    let uses = site.admin().count_kek_use(count).await.unwrap().into_inner().uses;
    let keks = keks(&site).await;
    let is_dead = |of: &&v1::KekUse| {
        keks.iter().any(|kek| kek.version == of.version && kek.state() == v1::KekState::Destroyed)
    };
    let living: u64 = uses.iter().filter(|of| !is_dead(of)).map(|of| of.sessions).sum();
    let lost = made.len() as u64 - living;
    assert!(lost == killed || rewraps && lost < killed, "seed {seed}: {lost} of {killed}");
    for kek in &keks {
        let wraps = uses.iter().any(|of| of.version == kek.version && of.sessions > 0);
        assert!(!wraps || kek.state() != v1::KekState::Pending, "seed {seed}");
    }
    assert_eq!(gone(&site, &made, seed).await, lost, "seed {seed}");
}

async fn keks(site: &Site) -> Vec<v1::Kek> {
    let list = v1::ListKeksRequest { tenant: site.tenant.clone(), page_size: 100, ..Default::default() };
    site.admin().list_keks(list).await.unwrap().into_inner().keks
}

/// How many of the sessions are gone. Whatever is not opens, once it may, with what was acknowledged.
async fn gone(site: &Site, made: &[Made], seed: u64) -> u64 {
    for kek in keks(site).await.into_iter().filter(|kek| kek.state() == v1::KekState::Disabled) {
        let (tenant, version) = (site.tenant.clone(), kek.version);
        let enable = v1::EnableKekRequest { tenant, version, ..Default::default() };
        site.admin().enable_kek(enable).await.unwrap();
    }
    let mut gone = 0;
    for (session, value) in made {
        match site.app().read_entry(read(session, "key")).await {
            Ok(answer) => {
                let read = answer.into_inner().entry.unwrap().value;
                assert!(value.as_ref().is_none_or(|value| value.as_bytes() == read), "seed {seed}");
            }
            Err(refused) => match reason(&refused).as_str() {
                "KEY_DESTROYED" => gone += 1,
                "ENTRY_NOT_FOUND" => assert_eq!(*value, None, "seed {seed}"),
                why => panic!("seed {seed}: {why}"),
            },
        }
    }
    gone
}

/// Creates sessions and writes to them until the tenant is gone; returns how many writes were acknowledged.
async fn tenant_user(site: Arc<Site>) -> usize {
    let mut written = 0;
    loop {
        let mut app = site.app();
        let made = match app.create_session(create(&site.tenant)).await {
            Ok(answer) => answer.into_inner().session.unwrap(),
            Err(refused) if reason(&refused) == "TENANT_NOT_FOUND" => return written,
            Err(refused) => {
                let why = reason(&refused);
                assert!(["TENANT_SUSPENDED", "UNAVAILABLE"].contains(&why.as_str()), "{why}");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let session =
            v1::SessionRef { tenant: site.tenant.clone(), session_id: made.session_id, owner: None };
        written += usize::from(app.put_entry(put_of(&session, new_put("key", "value"))).await.is_ok());
    }
}

/// Destroys a tenant that is in use, and then sees that nothing comes after that.
async fn end_of_tenant(seed: u64) {
    let site = Arc::new(Site::within(Inside::open_seeded(seed).await));
    let dice = Dice::of(seed);
    slow_down(&site, &dice);
    let users: Vec<_> = (0..CREATORS).map(|_| tokio::spawn(tenant_user(Arc::clone(&site)))).collect();
    for _ in 0..dice.below(60) {
        tokio::task::yield_now().await;
    }
    let (mut admin, name) = (site.admin(), || site.tenant.clone());
    let suspend = || v1::SuspendTenantRequest { name: name(), ..Default::default() };
    while let Err(refused) = admin.suspend_tenant(suspend()).await {
        assert_eq!(reason(&refused), "UNAVAILABLE", "seed {seed}");
    }
    let request = v1::DestroyTenantRequest { name: name(), grace: Some(seconds(0)), ..Default::default() };
    let dry = v1::DestroyTenantRequest { dry_run: true, ..request.clone() };
    let expect_sessions = admin.destroy_tenant(dry).await.unwrap().into_inner().sessions;
    let destroy = v1::DestroyTenantRequest { expect_sessions, ..request };
    let done = admin.destroy_tenant(destroy).await.unwrap().into_inner();
    // What the dry run counted is what died, although the tenant was in use all the time.
    assert_eq!(done.sessions, expect_sessions, "seed {seed}");
    let of_sessions = async || {
        let rows = site.world().rows().await.into_iter();
        rows.filter(|(key, _)| key.as_bytes()[0] == Table::Session as u8).collect::<Vec<_>>()
    };
    let at_the_end = of_sessions().await;
    let mut written = 0;
    for user in users {
        written += user.await.unwrap();
    }
    assert_eq!(of_sessions().await, at_the_end, "seed {seed}: something was sealed after the end");
    let sessions = at_the_end.iter().filter(|(key, _)| strongroom::store::keys::is_session(key)).count();
    assert_eq!((sessions as u64, at_the_end.len() - sessions), (expect_sessions, written), "seed {seed}");
    site.world().engine.heal();
    site.world().sweep().await;
    assert!(of_sessions().await.is_empty(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_end_of_a_tenant_nothing_is_sealed_and_as_many_died_as_were_counted() {
    for seed in seeds() {
        soon(end_of_tenant(seed)).await;
    }
}

fn seeds() -> std::ops::Range<u64> {
    let rounds = crate::support::variable("STRONGROOM_RACE_ROUNDS").unwrap_or(40);
    let first = crate::support::variable("STRONGROOM_RACE_SEED").unwrap_or(1);
    first..first + rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_lost_but_those_that_a_destruction_was_told_of() {
    for seed in seeds() {
        soon(race(seed)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_process_loses_no_session_but_those_that_a_destruction_was_told_of() {
    for seed in seeds() {
        soon(race_with_a_process(seed)).await;
    }
}
