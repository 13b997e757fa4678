//! The root epoch keys: rolled while others write, shared, verified.

use std::sync::Arc;

use strongroom::keyring::KeyringError;
use strongroom::proto::v1;
use strongroom::store::{
    Batch, CommitOutcome, Effect, Fault, Hook, Operation, Row, StorageEngine as _, Table,
};
use tokio::sync::Semaphore;
use tonic::{Code, Response, Status};

use crate::requests::{create, read, recovery_key};
use crate::site::Site;
use crate::support::{answered, refused, soon, until};

async fn root(site: &Site) -> v1::Root {
    answered(site.admin().get_root(v1::GetRootRequest {}).await).0.root.unwrap()
}

async fn rotate(site: &Site) -> v1::Root {
    answered(site.admin().rotate_root(v1::RotateRootRequest::default()).await).0.root.unwrap()
}

/// Lets the roll work until there is nothing left to do.
async fn roll(site: &Site) {
    while site.world().service.roll_step().await.unwrap() {}
    assert_eq!(site.world().keyring.epochs().1, 0, "the old epoch has ended");
}

async fn tenant_rows(site: &Site) -> Vec<(strongroom::store::Key, Row)> {
    let rows = site.world().rows().await.into_iter();
    rows.filter(|(key, _)| key.as_bytes()[0] == Table::Tenant as u8).collect()
}

#[tokio::test]
async fn a_roll_rewraps_what_lives_and_ends_the_old_epoch() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    for number in 0..70 {
        let name = format!("t{number}");
        let create = v1::CreateTenantRequest { name, ..Default::default() };
        site.admin().create_tenant(create).await.unwrap();
    }
    let before = tenant_rows(&site).await;
    let begun = rotate(&site).await;
    assert_eq!((begun.epoch, begun.epochs.len()), (2, 2));
    assert_eq!(begun.epochs[0].rows, before.len() as u64 + 1, "all tenants and the server");
    site.put(&session, "during", "value").await;
    roll(&site).await;

    let after = root(&site).await;
    assert!(after.epochs[0].end_time.is_some() && after.epochs[1].end_time.is_none());
    assert_eq!((after.epochs[0].rows, after.epochs[1].rows), (0, before.len() as u64 + 1));
    for (key, row) in &before {
        let opened = site.world().keyring.verify_row(key, row);
        assert!(matches!(opened, Err(KeyringError::Integrity)), "an old row opens");
    }
    for key in ["key", "during"] {
        let (answer, _) = answered(site.app().read_entry(read(&session, key)).await);
        assert_eq!(answer.entry.unwrap().value, "value");
    }
    let verified = answered(site.admin().verify_root(v1::VerifyRootRequest {}).await).0;
    assert_eq!((verified.rows_opened, verified.rows_damaged), (before.len() as u64 + 1, 0));
    assert!(verified.providers[0].opens);
}

#[tokio::test]
async fn a_second_roll_waits_for_the_first_and_a_restart_goes_on_with_it() {
    let site = Site::inside().await;
    rotate(&site).await;
    let outcome = site.admin().rotate_root(v1::RotateRootRequest::default()).await;
    site.refused(outcome, Code::FailedPrecondition, "ROOT_ROLLING", ("root.rotate", "fail")).await;
    let site = site.reopened().await;
    assert_eq!(site.world().keyring.epochs(), (2, 1));
    roll(&site).await;
    assert_eq!(rotate(&site).await.epoch, 3);
}

#[tokio::test]
async fn whoever_changes_a_tenant_or_makes_one_while_an_epoch_begins_wraps_under_that() {
    let site = Site::inside().await;
    let begin = || async { drop(rotate(&site).await) };
    let commits = || site.world().engine.calls(Operation::Commit);
    // The change reads when the commit of the new epoch is under way already, and is held.
    let begun = |before| until("the new epoch", move || (commits() > before).then_some(()));
    let request = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    let before = commits();
    let change = async {
        begun(before).await;
        drop(answered(site.admin().rotate_kek(request).await));
    };
    site.world().together(begin(), change).await;
    assert!(site.world().committer.stats().conflicts > 0, "nobody lost");
    roll(&site).await;
    let before = (commits(), site.world().committer.stats().conflicts);
    let make = async {
        begun(before.0).await;
        let create = v1::CreateTenantRequest { name: "late".to_owned(), ..Default::default() };
        drop(answered(site.admin().create_tenant(create).await));
    };
    site.world().together(begin(), make).await;
    assert!(site.world().committer.stats().conflicts > before.1, "nobody lost");
    roll(&site).await;
    for (key, row) in tenant_rows(&site).await {
        assert_eq!(site.world().keyring.epoch_of(&row).unwrap(), 3);
        site.world().keyring.verify_row(&key, &row).unwrap();
    }
    site.session().await;
}

#[tokio::test]
async fn a_change_of_a_tenant_that_a_roll_comes_by_is_not_lost() {
    let site = Site::inside().await;
    rotate(&site).await;
    let request = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
    let change = async { drop(answered(site.admin().rotate_kek(request).await)) };
    let step = async { assert!(!site.world().service.roll_step().await.unwrap()) };
    site.world().together(change, step).await;
    roll(&site).await;
    let list = v1::ListKeksRequest { tenant: site.tenant.clone(), ..Default::default() };
    assert_eq!(answered(site.admin().list_keks(list).await).0.keks.len(), 2);
}

/// Has a call wait with the tenant's row, which it read, until the epoch that this is wrapped under has ended, and others have
/// seen what the row became.
async fn overtaken<T: Send + 'static>(
    site: &Site,
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> T {
    rotate(site).await;
    let (read, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let hook: Hook = Arc::new({
        let (read, ended) = (Arc::clone(&read), Arc::clone(&ended));
        move |_| {
            let (read, ended) = (Arc::clone(&read), Arc::clone(&ended));
            Box::pin(async move {
                read.add_permits(1);
                ended.acquire().await.unwrap().forget();
            })
        }
    });
    let engine = &site.world().engine;
    // The first that it reads is its token.
    let number = Some(engine.calls(Operation::MultiGet) + 2);
    engine.inject(Fault { operation: Operation::MultiGet, number, effect: Effect::WaitAfter(hook) });
    let calling = tokio::spawn(call);
    read.acquire().await.unwrap().forget();
    roll(site).await;
    answered(site.admin().get_tenant(v1::GetTenantRequest { name: site.tenant.clone() }).await);
    ended.add_permits(1);
    answered(soon(calling).await.unwrap()).0
}

#[tokio::test]
async fn who_read_a_row_before_its_epoch_ended_reads_it_again_and_one_that_was_put_back_is_damage() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let before = tenant_rows(&site).await;

    let (mut app, request) = (site.app(), read(&session, "key"));
    let entry = overtaken(&site, async move { app.read_entry(request).await }).await.entry.unwrap();
    assert_eq!(entry.value, "value");
    let (mut app, request) = (site.app(), create(&site.tenant));
    overtaken(&site, async move { app.create_session(request).await }).await;
    let (mut admin, tenant) = (site.admin(), site.tenant.clone());
    let request = v1::RotateKekRequest { tenant, ..Default::default() };
    let kek = overtaken(&site, async move { admin.rotate_kek(request).await }).await.kek.unwrap();
    assert_eq!(kek.version, 2);

    let put_back = Batch { put: before, ..Batch::default() };
    assert_eq!(site.world().engine.commit(put_back).await.unwrap(), CommitOutcome::Committed);
    let outcome = site.app().read_entry(read(&session, "key")).await;
    refused(outcome, Code::DataLoss, "INTEGRITY_FAILURE");
}

#[tokio::test]
async fn a_damaged_row_keeps_the_old_epoch_alive_and_is_counted() {
    let site = Site::inside().await;
    let (key, row) = tenant_rows(&site).await.remove(0);
    let mut bytes = row.as_bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    site.world().tamper(&key, Some(Row::from_stored(bytes.into()))).await;
    rotate(&site).await;
    while site.world().service.roll_step().await.unwrap() {}
    assert_eq!(site.world().keyring.epochs(), (2, 1), "an epoch that something still needs has ended");
    let verified = answered(site.admin().verify_root(v1::VerifyRootRequest {}).await).0;
    assert_eq!(verified.rows_damaged, 1);
}

#[tokio::test]
async fn a_recovery_key_is_added_once_and_removed_and_the_provider_in_use_stays() {
    let site = Site::inside().await;
    let add = v1::AddRootRecipientRequest { public_key: recovery_key(), ..Default::default() };
    for _ in 0..2 {
        let now = answered(site.admin().add_root_recipient(add.clone()).await).0.root.unwrap();
        assert_eq!(now.epochs[0].recipients.len(), 2);
    }
    let remove = |key_id: &str, dry_run| v1::RemoveRootRecipientRequest {
        key_id: key_id.to_owned(),
        dry_run,
        ..Default::default()
    };
    let living =
        |root: v1::Root| root.epochs[0].recipients.iter().filter(|of| of.remove_time.is_none()).count();
    let dry = answered(site.admin().remove_root_recipient(remove(&add.public_key, true)).await).0;
    assert_eq!(living(dry.root.unwrap()), 2);
    let gone = answered(site.admin().remove_root_recipient(remove(&add.public_key, false)).await).0;
    assert_eq!(living(gone.root.unwrap()), 1);

    let outcome = site.admin().remove_root_recipient(remove(&add.public_key, false)).await;
    site.refused(outcome, Code::NotFound, "RECIPIENT_NOT_FOUND", ("root.remove", "fail")).await;
    let outcome = site.admin().remove_root_recipient(remove("open", false)).await;
    site.refused(outcome, Code::FailedPrecondition, "RECIPIENT_NEEDED", ("root.remove", "fail")).await;
}

#[tokio::test]
async fn a_mistyped_recovery_key_is_refused_and_a_dry_run_changes_nothing() {
    let site = Site::inside().await;
    let mut public_key = recovery_key();
    let last = public_key.pop().unwrap();
    public_key.push(if last == '0' { '1' } else { '0' });
    let add = v1::AddRootRecipientRequest { public_key, ..Default::default() };
    let outcome = site.admin().add_root_recipient(add).await;
    site.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", ("root.add", "fail")).await;
    let dry = v1::RotateRootRequest { dry_run: true, ..Default::default() };
    let planned = answered(site.admin().rotate_root(dry).await).0.root.unwrap();
    assert_eq!((planned.epoch, planned.epochs.len()), (1, 1));
}
