//! ListKeks, RotateKek.

use strongroom::proto::v1::{self, KekState};
use tonic::Code;

use crate::requests::{append, create, events};
use crate::site::Site;
use crate::support::{answered, stamp};

fn rotate(site: &Site) -> v1::RotateKekRequest {
    v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() }
}

fn keks(site: &Site) -> v1::ListKeksRequest {
    v1::ListKeksRequest { tenant: site.tenant.clone(), ..Default::default() }
}

#[tokio::test]
async fn after_a_rotation_old_sessions_open_and_new_ones_are_wrapped_under_the_new_version() {
    let site = Site::outside().await;
    let old = site.session().await;
    site.put(&old, "key", "before").await;
    site.app().append_events(append(&old, "stream", &["before"])).await.unwrap();
    for version in 2..=4 {
        let outcome = site.admin().rotate_kek(rotate(&site)).await;
        let place = stamp(outcome.as_ref().unwrap().metadata()).unwrap();
        let made = site.answered(outcome, "key.rotate").await.kek.unwrap();
        assert_eq!(site.event(&place).await["kid"]["kek"], version);
        assert_eq!((made.version, made.state), (version, i32::from(KekState::Primary)));
    }
    assert_eq!(site.look(&old, "key").await, Some((1, b"before".to_vec())));
    assert_eq!(site.put(&old, "key", "after").await, 2);
    let (mut stream, _) = answered(site.app().read_events(events(&old, "stream")).await);
    assert_eq!(stream.message().await.unwrap().unwrap().events.len(), 1);

    let (new, place) = answered(site.app().create_session(create(&site.tenant)).await);
    assert_eq!(site.event(&place).await["kid"]["kek"], 4);
    let new = v1::SessionRef {
        tenant: site.tenant.clone(),
        session_id: new.session.unwrap().session_id,
        owner: None,
    };
    site.put(&new, "key", "new").await;

    let listed = site.answered(site.admin().list_keks(keks(&site)).await, "key.list").await.keks;
    let states: Vec<_> = listed.iter().map(|kek| (kek.version, kek.state)).collect();
    let (enabled, primary) = (i32::from(KekState::Enabled), i32::from(KekState::Primary));
    assert_eq!(states, [(1, enabled), (2, enabled), (3, enabled), (4, primary)]);
    assert!(listed.iter().all(|kek| kek.create_time.is_some() && kek.state_time.is_some()));
    let get = v1::GetTenantRequest { name: site.tenant.clone() };
    assert_eq!(answered(site.admin().get_tenant(get).await).0.tenant.unwrap().primary_kek_version, 4);
}

#[tokio::test]
async fn after_a_rotation_and_a_restart_everything_opens() {
    let site = Site::inside().await;
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    answered(site.admin().rotate_kek(rotate(&site)).await);
    let site = site.reopened().await;
    assert_eq!(site.look(&session, "key").await, Some((1, b"value".to_vec())));
    let mut request = v1::ListKeksRequest { page_size: 1, ..keks(&site) };
    let first = answered(site.admin().list_keks(request.clone()).await).0;
    assert_eq!(first.keks.len(), 1);
    request.page_token = first.next_page_token;
    let second = answered(site.admin().list_keks(request).await).0;
    assert_eq!((second.keks[0].version, second.next_page_token.as_str()), (2, ""));
}

#[tokio::test]
async fn versions_are_bounded_and_the_bound_is_told() {
    let site = Site::inside().await;
    for _ in 1..strongroom::keyring::MAX_KEK_VERSIONS {
        answered(site.admin().rotate_kek(rotate(&site)).await);
    }
    let outcome = site.admin().rotate_kek(rotate(&site)).await;
    let exceeded = (Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let refusal = site.refused(outcome, exceeded.0, exceeded.1, ("key.rotate", "fail")).await;
    assert_eq!(refusal.details, [("limit".to_owned(), "120".to_owned())].into());
    let session = site.session().await;
    site.put(&session, "key", "value").await;
    let listed = answered(site.admin().list_keks(keks(&site)).await).0;
    assert_eq!((listed.keks.len(), listed.next_page_token.is_empty()), (100, false));
}

#[tokio::test]
async fn concurrent_rotations_each_make_a_version() {
    let site = Site::inside().await;
    let rotations = (0..8).map(|_| {
        let (mut admin, request) = (site.admin(), rotate(&site));
        async move { answered(admin.rotate_kek(request).await).0.kek.unwrap().version }
    });
    let mut made = crate::support::soon(futures_util::future::join_all(rotations)).await;
    made.sort_unstable();
    assert_eq!(made, (2..=9).collect::<Vec<_>>());
}
