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

use crate::requests::{create, new_put, put_of, read, seconds};
use crate::site::Site;
use crate::support::{Inside, Login, soon};

const CREATORS: u64 = 4;
const SESSIONS: usize = 6;
const CHANGES: usize = 12;

/// Numbers that look random, for one seed.
struct Dice(AtomicU64);

impl Dice {
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

/// Creates sessions and writes to them; returns those that were acknowledged, with the value that was, if one was.
async fn creator(site: Arc<Site>, number: u64) -> Vec<(v1::SessionRef, Option<String>)> {
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

async fn rewrapper(site: Arc<Site>, stop: Arc<AtomicBool>) {
    let start = v1::StartJobRequest {
        tenant: site.tenant.clone(),
        kind: v1::JobKind::Rewrap.into(),
        ..Default::default()
    };
    while !stop.load(Ordering::Relaxed) {
        // One may be at work already, and a lost race is no harm.
        drop(site.admin().start_job(start.clone()).await);
        drop(site.world().jobs.round().await);
        tokio::task::yield_now().await;
    }
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

async fn race(seed: u64) {
    let site = Arc::new(Site::within(Inside::open_seeded(seed).await));
    let dice = Arc::new(Dice(AtomicU64::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))));
    slow_down(&site, &dice);
    let stop = Arc::new(AtomicBool::new(false));
    let rewraps = seed % 2 == 1;
    let rolling = seed.is_multiple_of(3).then(|| tokio::spawn(roller(Arc::clone(&site), Arc::clone(&stop))));
    let rewrapping = rewraps.then(|| tokio::spawn(rewrapper(Arc::clone(&site), Arc::clone(&stop))));
    let keeping = tokio::spawn(keeper(Arc::clone(&site), dice));
    let creating: Vec<_> =
        (0..CREATORS).map(|number| tokio::spawn(creator(Arc::clone(&site), number))).collect();
    let mut made = Vec::new();
    for creating in creating {
        made.extend(creating.await.unwrap());
    }
    let killed = keeping.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for working in [rewrapping, rolling].into_iter().flatten() {
        working.await.unwrap();
    }

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

    // Whatever is not dead opens, once it may, with what was acknowledged.
    let mut admin = site.world().control(Login::Admin);
    for (version, _) in states.iter().filter(|(_, state)| **state == State::Disabled) {
        let (tenant, version) = (site.tenant.clone(), version.0);
        admin.enable_kek(v1::EnableKekRequest { tenant, version, ..Default::default() }).await.unwrap();
    }
    let mut gone = 0;
    for (session, value) in &made {
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
    assert_eq!(gone, lost, "seed {seed}");
}

#[expect(clippy::disallowed_methods, reason = "how long to try is asked for in the environment")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_lost_but_those_that_a_destruction_was_told_of() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let rounds = variable("STRONGROOM_RACE_ROUNDS").unwrap_or(40);
    let first = variable("STRONGROOM_RACE_SEED").unwrap_or(1);
    for seed in first..first + rounds {
        soon(race(seed)).await;
    }
}
