//! The anchor of the access logs, kept in memory: when it is written, and what a start makes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use strongroom::proto::v1;
use strongroom::service::{Acceptance, AnchorError, AnchorPlace, Anchoring, LogAt, Opened, PlaceError};
use strongroom::store::{Batch, Key, Row, StorageEngine as _};

use crate::requests::search;
use crate::support::{Inside, Login, answered};

/// A place in memory, which can be made to fail.
#[derive(Clone, Default)]
struct Place {
    text: Arc<Mutex<Option<String>>>,
    writes: Arc<Mutex<usize>>,
    broken: Arc<AtomicBool>,
}

#[async_trait]
impl AnchorPlace for Place {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn read(&self) -> Result<Option<String>, PlaceError> {
        Ok(self.text.lock().unwrap().clone())
    }

    async fn replace(&self, text: String) -> Result<(), PlaceError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(PlaceError::new("broken"));
        }
        *self.text.lock().unwrap() = Some(text);
        *self.writes.lock().unwrap() += 1;
        Ok(())
    }
}

impl Place {
    fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    async fn open(&self, world: &Inside, accepted: &mut Acceptance) -> Result<Opened, AnchorError> {
        Anchoring::open(&world.service, Box::new(self.clone()), accepted).await
    }

    /// Opens the anchor, which must be as it should be.
    async fn ready(&self, world: &Inside, mut accepted: Acceptance) -> Arc<Anchoring> {
        match self.open(world, &mut accepted).await.unwrap_or_else(|error| panic!("{error}")) {
            Opened::Ready(anchoring) => anchoring,
            Opened::Again => panic!("the server's log goes on in another epoch"),
        }
    }

    /// Begins a new anchor as the refusal says.
    async fn begin(&self, world: &Inside) -> Arc<Anchoring> {
        match self.open(world, &mut Acceptance::default()).await {
            Err(AnchorError::Missing { now, .. }) => {
                self.ready(world, Acceptance { new_anchor: Some(now), ..Acceptance::default() }).await
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a store that is not new needs an acceptance"),
        }
    }

    /// The logs that a start is refused for, as they are.
    async fn refused(&self, world: &Inside) -> Vec<LogAt> {
        match self.open(world, &mut Acceptance::default()).await {
            Err(AnchorError::RolledBack { logs, .. }) => logs.into_iter().map(|log| log.found).collect(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was not refused"),
        }
    }
}

async fn put_back(world: Inside, rows: Vec<(Key, Row)>) -> Inside {
    let delete = world.rows().await.into_iter().map(|(key, _)| key);
    let kept: std::collections::BTreeSet<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    let delete = delete.filter(|key| !kept.contains(key)).collect();
    world.engine.inner().commit(Batch { put: rows, delete, ..Batch::default() }).await.unwrap();
    world.reopen().await
}

#[tokio::test]
async fn the_anchor_is_written_when_a_log_grew_and_once_a_minute_and_not_otherwise() {
    let world = Inside::open().await;
    let place = Place::default();
    let anchoring = place.begin(&world).await;
    let begun = place.writes();
    assert!(anchoring.round().await && place.writes() == begun, "nothing grew");
    world.clock.advance(Duration::from_secs(59));
    assert!(anchoring.round().await && place.writes() == begun, "no minute is over");
    assert_eq!(anchoring.health().age, Duration::from_secs(59));
    world.clock.advance(Duration::from_secs(1));
    assert!(anchoring.round().await && place.writes() == begun + 1, "the heartbeat");
    assert_eq!(anchoring.health().age, Duration::ZERO);
    let before = place.text.lock().unwrap().clone();
    answered(world.control(Login::Admin).get_status(v1::GetStatusRequest {}).await);
    assert!(anchoring.round().await && place.writes() == begun + 2, "the server's log grew");
    assert_ne!(before, *place.text.lock().unwrap());
    assert!(anchoring.finish().await && place.writes() == begun + 3, "the last one");
}

#[tokio::test]
async fn an_anchor_that_fails_is_told_holds_up_nothing_and_is_made_up_for() {
    let world = Inside::open().await;
    let place = Place::default();
    let anchoring = place.begin(&world).await;
    place.broken.store(true, Ordering::SeqCst);
    assert!(anchoring.round().await, "nothing grew, nothing to write");
    answered(world.control(Login::Admin).get_status(v1::GetStatusRequest {}).await);
    world.clock.advance(Duration::from_secs(7));
    assert!(!anchoring.round().await && !anchoring.round().await);
    let health = anchoring.health();
    assert_eq!((health.failures, health.failing, health.age), (2, true, Duration::from_secs(7)));
    answered(world.control(Login::Admin).get_status(v1::GetStatusRequest {}).await);
    place.broken.store(false, Ordering::SeqCst);
    assert!(anchoring.round().await, "what grew meanwhile is written");
    let health = anchoring.health();
    assert_eq!((health.failures, health.failing, health.age), (2, false, Duration::ZERO));
    let rows = world.rows().await;
    let world = put_back(world, rows).await;
    place.ready(&world, Acceptance::default()).await;
}

#[tokio::test]
async fn a_tenant_that_is_gone_with_its_log_is_refused_and_its_end_goes_on_record() {
    let world = Inside::open().await;
    let place = Place::default();
    let anchoring = place.begin(&world).await;
    let rows = world.rows().await;
    let request = v1::CreateTenantRequest { name: "late".to_owned(), ..Default::default() };
    answered(world.control(Login::Admin).create_tenant(request).await);
    answered(world.control(Login::Admin).search_audit(search("late")).await);
    anchoring.round().await;
    let world = put_back(world, rows).await;
    let found = place.refused(&world).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|log| log.size == 0), "{found:?}");

    let mut accepted = Acceptance { rollbacks: found, new_anchor: None };
    assert!(matches!(place.open(&world, &mut accepted).await, Ok(Opened::Again)));
    assert_eq!(accepted.rollbacks.len(), 1, "that of the server's own log is used up");
    let world = world.reopen().await;
    place.ready(&world, accepted).await;
    let (page, _) = answered(world.control(Login::Admin).search_audit(search("")).await);
    let lines: Vec<_> = page.events.iter().map(|event| event.line.as_str()).collect();
    let [epoch, own, of_tenant, ..] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(epoch.contains("sys.epoch") && own.contains("sys.rollback") && !own.contains("ten"), "{lines:?}");
    assert!(of_tenant.contains("sys.rollback") && of_tenant.contains("\"ten\":"), "{lines:?}");
    let world = world.reopen().await;
    place.ready(&world, Acceptance::default()).await;
}
