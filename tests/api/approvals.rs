//! Two people for what cannot be undone: asked for by one, approved by another, done once by the first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strongroom::model::limits::{APPROVAL_KEPT, APPROVALS_OPEN_EACH, APPROVALS_STORED};
use strongroom::proto::v1::{self, Scope};
use strongroom::store::{Effect, Failure, Fault, Hook, Operation, Table};
use tokio::sync::Semaphore;
use tonic::{Code, Response, Status};

use crate::requests::{create, millis, new_id, seconds, span};
use crate::site::Site;
use crate::support::{Approving, BEGIN, Control, Inside, Refusal, answered, refused, soon};

const DAY: Duration = Duration::from_secs(24 * 3600);
const REQUIRED: (Code, &str) = (Code::FailedPrecondition, "APPROVAL_REQUIRED");
const NOT_FOUND: (Code, &str) = (Code::NotFound, "APPROVAL_NOT_FOUND");
const NOT_SO: (Code, &str) = (Code::FailedPrecondition, "APPROVAL_STATE");

/// Something with a state that has a name.
trait Named {
    fn named(&self) -> &'static str;
}

impl Named for v1::Approval {
    fn named(&self) -> &'static str {
        self.state().as_str_name().strip_prefix("APPROVAL_STATE_").unwrap()
    }
}

impl Named for v1::Kek {
    fn named(&self) -> &'static str {
        self.state().as_str_name().strip_prefix("KEK_STATE_").unwrap()
    }
}

/// Somebody with a token.
struct Person {
    name: &'static str,
    keys: Control,
    approvals: Approving,
}

impl Person {
    async fn new(site: &Site, name: &'static str, scopes: &[Scope], tenant: &str) -> Self {
        let create = v1::CreateTokenRequest {
            name: name.to_owned(),
            scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
            tenants: vec![tenant.to_owned()],
            ..Default::default()
        };
        let secret = answered(site.admin().create_token(create).await).0.secret;
        Self { name, keys: site.control(Some(&secret)), approvals: site.approving(Some(&secret)) }
    }

    async fn destroy(
        &self,
        request: &v1::DestroyKekRequest,
    ) -> Result<Response<v1::DestroyKekResponse>, Status> {
        self.keys.clone().destroy_kek(request.clone()).await
    }

    /// Asks for it; gives the id of the approval.
    async fn ask(&self, request: &v1::DestroyKekRequest) -> String {
        required(self.destroy(request).await)
    }

    async fn approve(&self, id: &str) -> Result<Response<v1::ApproveResponse>, Status> {
        self.approvals.clone().approve(v1::ApproveRequest { approval_id: id.to_owned() }).await
    }

    async fn deny(&self, id: &str) -> Result<Response<v1::DenyResponse>, Status> {
        self.approvals.clone().deny(v1::DenyRequest { approval_id: id.to_owned() }).await
    }

    async fn look(&self, id: &str) -> Result<Response<v1::GetApprovalResponse>, Status> {
        self.approvals.clone().get_approval(v1::GetApprovalRequest { approval_id: id.to_owned() }).await
    }

    async fn state(&self, id: &str) -> &'static str {
        answered(self.look(id).await).0.approval.unwrap().named()
    }

    /// The ids of all that it sees.
    async fn list(&self) -> Vec<String> {
        let (mut ids, mut request) =
            (Vec::new(), v1::ListApprovalsRequest { page_size: 100, ..Default::default() });
        loop {
            let page = answered(self.approvals.clone().list_approvals(request.clone()).await).0;
            ids.extend(page.approvals.into_iter().map(|approval| approval.approval_id));
            if page.next_page_token.is_empty() {
                return ids;
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// The id of the approval for want of which a call was refused.
#[track_caller]
fn required<T>(outcome: Result<Response<T>, Status>) -> String {
    refused(outcome, REQUIRED.0, REQUIRED.1).details["approval_id"].clone()
}

/// A store where it takes two people, with two of them, and a version to destroy that wraps three sessions.
struct Scene {
    site: Site,
    one: Person,
    other: Person,
}

const DESTROYERS: [Scope; 2] = [Scope::KeysDestroy, Scope::KeysDestroyNow];

impl Scene {
    async fn new() -> Self {
        let site = Site::within(Inside::open_with_approvals(DAY).await);
        for _ in 0..3 {
            let ttl = v1::create_session_request::Expiration::Ttl(seconds(90 * 24 * 3600));
            site.create(v1::CreateSessionRequest { expiration: Some(ttl), ..create(&site.tenant) }).await;
        }
        for _ in 0..2 {
            let rotate = v1::RotateKekRequest { tenant: site.tenant.clone(), ..Default::default() };
            answered(site.admin().rotate_kek(rotate).await);
        }
        let one = Person::new(&site, "one", &DESTROYERS, "demo").await;
        let other = Person::new(&site, "other", &DESTROYERS, "demo").await;
        Self { site, one, other }
    }

    async fn version(&self, version: u32) -> &'static str {
        let get = v1::GetKekRequest { tenant: self.site.tenant.clone(), version };
        answered(self.site.admin().get_kek(get).await).0.kek.unwrap().named()
    }

    async fn cancel(&self, version: u32) {
        let tenant = self.site.tenant.clone();
        let cancel = v1::CancelKekDestructionRequest { tenant, version, ..Default::default() };
        answered(self.site.admin().cancel_kek_destruction(cancel).await);
    }

    fn rows(&self) -> impl Future<Output = usize> {
        let world = self.site.world();
        async {
            let rows = world.rows().await;
            rows.iter().filter(|(key, _)| key.as_bytes()[0] == Table::Approval as u8).count()
        }
    }

    async fn after(&self, span: Duration) {
        self.site.world().clock.advance(span);
        self.site.world().sweep().await;
    }
}

/// The destruction of the version that wraps three sessions, after the usual grace.
fn doomed() -> v1::DestroyKekRequest {
    v1::DestroyKekRequest { tenant: "demo".to_owned(), version: 1, expect_sessions: 3, ..Default::default() }
}

fn at_once() -> v1::DestroyKekRequest {
    v1::DestroyKekRequest { grace: Some(seconds(0)), ..doomed() }
}

#[tokio::test]
async fn what_one_asks_for_and_another_approves_is_done_once_and_all_of_it_is_on_record() {
    let Scene { site, one, other } = &Scene::new().await;
    let outcome = one.destroy(&doomed()).await;
    let refusal = site.refused(outcome, REQUIRED.0, REQUIRED.1, ("key.schedule", "fail")).await;
    let id = refusal.details["approval_id"].clone();
    let description =
        "destroy version 1 of the tenant's key after a grace of 7days; 3 sessions are lost with it";
    let expected: BTreeMap<_, _> = [
        ("approval_id", id.as_str()),
        ("description", description),
        ("expire_time", "2026-09-22T14:13:20.000Z"),
        ("scopes", "keys-destroy"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(refusal.details, expected);
    let waiting = site.answered(other.look(&id).await, "approval.read").await.approval.unwrap();
    let begin = BEGIN.as_millis();
    assert_eq!(
        waiting,
        v1::Approval {
            approval_id: id.clone(),
            operation: "key.schedule".to_owned(),
            tenant: "demo".to_owned(),
            description: description.to_owned(),
            scopes: vec![Scope::KeysDestroy.into()],
            requester: "token:one".to_owned(),
            create_time: Some(crate::requests::time(begin)),
            expire_time: Some(crate::requests::time(begin + 24 * 3_600_000)),
            state: v1::ApprovalState::Waiting.into(),
            ..Default::default()
        }
    );
    let approved = site.answered(other.approve(&id).await, "approval.approve").await.approval.unwrap();
    assert_eq!((approved.named(), approved.decider.as_str()), ("APPROVED", "token:other"));
    assert_eq!(millis(approved.decide_time), begin);
    let done = site.answered(one.destroy(&doomed()).await, "key.schedule").await;
    assert_eq!((done.sessions, done.kek.unwrap().named()), (3, "DESTROY_SCHEDULED"));
    let used = answered(one.look(&id).await).0.approval.unwrap();
    assert_eq!((used.named(), millis(used.use_time)), ("USED", begin));

    for (key, row) in site.world().rows().await {
        let open = [b"token:one".as_slice(), b"destroy"];
        assert!(
            !open.iter().any(|text| row.as_bytes().windows(text.len()).any(|part| part == *text)),
            "{key:?}"
        );
    }
    let events = site.events_since(0).await;
    let linked: Vec<_> = events.iter().filter(|event| event["pol"]["apr"] == id.as_str()).collect();
    let said: Vec<_> = linked
        .iter()
        .map(|event| (&event["typ"], &event["out"]))
        .map(|(a, b)| format!("{} {}", a.as_str().unwrap(), b.as_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            "approval.request ok",
            "key.schedule fail",
            "approval.read ok",
            "approval.approve ok",
            "key.schedule ok",
            "approval.read ok"
        ]
    );
    assert_eq!(linked[0]["act"], linked[4]["act"], "who asked did it");
    assert_ne!(linked[0]["act"], linked[3]["act"], "and somebody else approved");
    assert!([0, 1, 4].iter().all(|at: &usize| linked[*at]["kid"]["kek"] == 1 || *at == 1));
}

#[tokio::test]
async fn who_asked_cannot_approve() {
    let Scene { site, one, other } = &Scene::new().await;
    let id = one.ask(&doomed()).await;
    let outcome = one.approve(&id).await;
    site.refused(outcome, Code::PermissionDenied, "APPROVAL_OWN", ("approval.approve", "deny")).await;
    assert_eq!(one.state(&id).await, "WAITING");
    assert_eq!(one.ask(&doomed()).await, id, "the same request is asked for once");
    answered(other.approve(&id).await);
    let own = refused(one.approve(&id).await, Code::PermissionDenied, "APPROVAL_OWN");
    assert!(own.stamp.is_some());
}

#[tokio::test]
async fn who_could_not_do_it_does_not_learn_of_it() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let create = v1::CreateTenantRequest { name: "elsewhere".to_owned(), ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    let without: Vec<Scope> =
        (1..=11).filter_map(|n| Scope::try_from(n).ok()).filter(|of| *of != Scope::KeysDestroyNow).collect();
    let strangers = [
        Person::new(site, "lacks-a-scope", &without, "demo").await,
        Person::new(site, "of-another-tenant", &DESTROYERS, "elsewhere").await,
        Person::new(site, "may-read", &[Scope::Read], "demo").await,
    ];
    let id = one.ask(&at_once()).await;
    let nothing = uuid::Uuid::nil().to_string();
    for stranger in &strangers {
        assert_eq!(stranger.list().await, Vec::<String>::new(), "{}", stranger.name);
        let seen = |outcome: Result<(), Status>| Refusal::of(&outcome.unwrap_err()).without_place();
        for real in [true, false] {
            let id = if real { &id } else { &nothing };
            let outcomes = [
                ("approval.read", stranger.look(id).await.map(drop)),
                ("approval.approve", stranger.approve(id).await.map(drop)),
                ("approval.deny", stranger.deny(id).await.map(drop)),
            ];
            for (typ, outcome) in outcomes {
                let copy = outcome.clone().map(Response::new);
                let refusal = site.refused(copy, NOT_FOUND.0, NOT_FOUND.1, (typ, "deny")).await;
                let event = site.event(&refusal.stamp.unwrap()).await;
                assert_eq!(event["pol"], serde_json::Value::Null, "{event}");
                let told = seen(outcome);
                assert_eq!(told, seen(stranger.look(&nothing).await.map(drop)), "{}", stranger.name);
            }
        }
    }
    assert_eq!(one.state(&id).await, "WAITING");
    assert_eq!((one.list().await, other.list().await), (vec![id.clone()], vec![id.clone()]));
    // What takes fewer rights, those with fewer may decide about.
    let gentle = one.ask(&doomed()).await;
    assert_eq!(strangers[0].list().await, std::slice::from_ref(&gentle));
    answered(strangers[0].approve(&gentle).await);
    assert_eq!(answered(one.destroy(&doomed()).await).0.sessions, 3);
}

#[tokio::test]
async fn an_approval_is_for_one_request_in_every_part_of_it() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let create = v1::CreateTenantRequest { name: "elsewhere".to_owned(), ..Default::default() };
    answered(site.admin().create_tenant(create).await);
    for _ in 0..2 {
        let rotate = v1::RotateKekRequest { tenant: "elsewhere".to_owned(), ..Default::default() };
        answered(site.admin().rotate_kek(rotate).await);
    }
    let everywhere = Person::new(site, "everywhere", &DESTROYERS, "*").await;
    let empty = v1::DestroyKekRequest { version: 2, expect_sessions: 0, ..doomed() };
    let id = everywhere.ask(&empty).await;
    answered(other.approve(&id).await);
    let changed = [
        ("version", v1::DestroyKekRequest { version: 1, expect_sessions: 3, ..empty.clone() }),
        ("grace", v1::DestroyKekRequest { grace: Some(span(2 * DAY)), ..empty.clone() }),
        ("no grace", v1::DestroyKekRequest { grace: Some(seconds(0)), ..empty.clone() }),
        ("tenant", v1::DestroyKekRequest { tenant: "elsewhere".to_owned(), ..empty.clone() }),
    ];
    let mut ids = vec![id.clone()];
    for (what, request) in changed {
        let another = everywhere.ask(&request).await;
        assert!(!ids.contains(&another), "{what}");
        ids.push(another);
    }
    // Nor is it for anybody else, the one who approved it included.
    for person in [one, other] {
        let another = person.ask(&empty).await;
        assert!(!ids.contains(&another));
        ids.push(another);
    }
    assert_eq!(one.state(&id).await, "APPROVED");
    // Neither the id of the request nor the usual grace spelt out makes another request of it.
    let same = v1::DestroyKekRequest { grace: Some(span(7 * DAY)), request_id: new_id(), ..empty };
    answered(everywhere.destroy(&same).await);
    assert_eq!(one.state(&id).await, "USED");
}

#[tokio::test]
async fn what_the_world_has_become_is_looked_at_again() {
    let Scene { site, one, other } = &Scene::new().await;
    let id = one.ask(&doomed()).await;
    answered(other.approve(&id).await);
    let kind = v1::JobKind::Rewrap.into();
    let rewrap = v1::StartJobRequest { tenant: "demo".to_owned(), kind, ..Default::default() };
    answered(site.admin().start_job(rewrap).await);
    site.world().work().await;
    let outcome = one.destroy(&doomed()).await;
    let in_use = (Code::FailedPrecondition, "KEY_IN_USE");
    let refusal = site.refused(outcome, in_use.0, in_use.1, ("key.schedule", "fail")).await;
    assert_eq!(site.event(&refusal.stamp.unwrap()).await["pol"].get("apr"), None);
    assert_eq!(one.state(&id).await, "APPROVED", "it is not used up");
    // What would be refused is not even asked for.
    let primary = v1::DestroyKekRequest { version: 3, ..doomed() };
    refused(one.destroy(&primary).await, Code::FailedPrecondition, "KEY_STATE");
    assert_eq!(one.list().await, [id]);
}

#[tokio::test]
async fn an_approval_works_once() {
    let scene = Scene::new().await;
    let Scene { one, other, .. } = &scene;
    let id = one.ask(&doomed()).await;
    answered(other.approve(&id).await);
    let request = v1::DestroyKekRequest { request_id: new_id(), ..doomed() };
    let (first, _) = answered(one.destroy(&request).await);
    assert_eq!(answered(one.destroy(&request).await).0, first, "the repetition of what was done needs none");
    scene.cancel(1).await;
    answered(one.destroy(&request).await);
    assert_eq!(scene.version(1).await, "DISABLED");
    let next = one.ask(&doomed()).await;
    assert_ne!(next, id);
    let state = |refusal: Refusal| refusal.details["state"].clone();
    assert_eq!(state(refused(other.approve(&id).await, NOT_SO.0, NOT_SO.1)), "used");
    assert_eq!(state(refused(one.deny(&id).await, NOT_SO.0, NOT_SO.1)), "used");
    assert_eq!(one.list().await, [id, next]);
}

#[tokio::test]
async fn what_was_denied_or_withdrawn_is_not_done() {
    let Scene { site, one, other } = &Scene::new().await;
    for approved_first in [false, true] {
        for decider in [one, other] {
            let id = one.ask(&doomed()).await;
            if approved_first {
                answered(other.approve(&id).await);
                answered(other.approve(&id).await);
            }
            let denied = site.answered(decider.deny(&id).await, "approval.deny").await.approval.unwrap();
            assert_eq!((denied.named(), denied.decider), ("DENIED", format!("token:{}", decider.name)));
            answered(one.deny(&id).await);
            assert_eq!(
                answered(one.look(&id).await).0.approval.unwrap().decider,
                format!("token:{}", decider.name)
            );
            let refusal = refused(other.approve(&id).await, NOT_SO.0, NOT_SO.1);
            assert_eq!(refusal.details, [("state".to_owned(), "denied".to_owned())].into());
            let next = one.ask(&doomed()).await;
            assert_ne!(next, id, "who asks again asks anew");
            answered(one.deny(&next).await);
        }
    }
}

#[tokio::test]
async fn what_is_not_used_in_time_is_over() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let waits = one.ask(&at_once()).await;
    let approved = one.ask(&doomed()).await;
    answered(other.approve(&approved).await);
    site.world().clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(one.ask(&at_once()).await, waits);
    assert_eq!(other.state(&approved).await, "APPROVED");
    site.world().clock.advance(Duration::from_millis(1));
    // Exactly at its time, whether or not somebody has swept.
    for swept in [false, true] {
        if swept {
            site.world().sweep().await;
        }
        for id in [&waits, &approved] {
            assert_eq!(other.state(id).await, "EXPIRED");
            let refusal = refused(other.approve(id).await, NOT_SO.0, NOT_SO.1);
            assert_eq!(refusal.details, [("state".to_owned(), "expired".to_owned())].into());
            refused(one.deny(id).await, NOT_SO.0, NOT_SO.1);
        }
    }
    let anew = one.ask(&doomed()).await;
    assert_ne!(anew, approved);
    let events = site.events_since(0).await;
    let mut expired: Vec<_> = events
        .iter()
        .filter(|event| event["typ"] == "approval.expire")
        .map(|event| event["pol"]["apr"].as_str().unwrap())
        .collect();
    expired.sort_unstable();
    let mut both = [waits.as_str(), approved.as_str()];
    both.sort_unstable();
    assert_eq!(expired, both);

    // It can be looked at for a while, and leaves nothing.
    answered(one.deny(&anew).await);
    scene.after(APPROVAL_KEPT - Duration::from_secs(1)).await;
    assert_eq!((scene.rows().await, one.state(&waits).await), (3, "EXPIRED"));
    scene.after(DAY + Duration::from_secs(2)).await;
    assert_eq!((scene.rows().await, one.list().await), (0, Vec::new()));
    let left = site.world().rows().await;
    let approvals = left.iter().filter(|(key, _)| {
        key.as_bytes()[0] == Table::Expiry as u8 && key.as_bytes()[9] == Table::Approval as u8
    });
    assert_eq!(approvals.count(), 0, "an index row is left");
    refused(one.look(&waits).await, NOT_FOUND.0, NOT_FOUND.1);
    let events = site.events_since(0).await;
    assert_eq!(events.iter().filter(|event| event["typ"] == "approval.expire").count(), 2);
}

#[tokio::test]
async fn of_two_who_ask_for_the_same_only_the_one_who_was_approved_goes_ahead() {
    let Scene { site, one, other } = &Scene::new().await;
    let third = Person::new(site, "third", &DESTROYERS, "demo").await;
    let (of_one, of_other) = (one.ask(&doomed()).await, other.ask(&doomed()).await);
    assert_ne!(of_one, of_other);
    answered(third.approve(&of_one).await);
    assert_eq!(required(other.destroy(&doomed()).await), of_other);
    // Each may approve the other's.
    answered(one.approve(&of_other).await);
    answered(one.destroy(&doomed()).await);
    refused(other.destroy(&doomed()).await, Code::FailedPrecondition, "KEY_STATE");
    assert_eq!((one.state(&of_one).await, one.state(&of_other).await), ("USED", "APPROVED"));
}

#[tokio::test]
async fn who_was_revoked_in_between_does_nothing() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let id = one.ask(&doomed()).await;
    answered(other.approve(&id).await);
    let revoke = v1::RevokeTokenRequest { name: "one".to_owned(), ..Default::default() };
    answered(site.admin().revoke_token(revoke).await);
    let refusal = one.destroy(&doomed()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert_eq!(scene.version(1).await, "ENABLED");
    // Nobody can take the name again, and with it the approval.
    let again = v1::CreateTokenRequest {
        name: "one".to_owned(),
        scopes: vec![1],
        tenants: vec!["*".to_owned()],
        ..Default::default()
    };
    refused(site.admin().create_token(again).await, Code::AlreadyExists, "ALREADY_EXISTS");
    answered(other.deny(&id).await);
}

#[tokio::test]
async fn a_dry_run_asks_nobody_and_says_what_would_die() {
    let scene = Scene::new().await;
    let dry = v1::DestroyKekRequest { dry_run: true, ..at_once() };
    assert_eq!(answered(scene.one.destroy(&dry).await).0.sessions, 3);
    assert_eq!((scene.rows().await, scene.version(1).await), (0, "ENABLED"));
}

#[tokio::test]
async fn without_the_wish_for_two_one_is_enough() {
    let site = Site::inside().await;
    let rotate = v1::RotateKekRequest { tenant: "demo".to_owned(), ..Default::default() };
    answered(site.admin().rotate_kek(rotate).await);
    let one = Person::new(&site, "one", &DESTROYERS, "demo").await;
    let request = v1::DestroyKekRequest { expect_sessions: 0, ..doomed() };
    answered(one.destroy(&request).await);
    assert_eq!(one.list().await, Vec::<String>::new());
}

#[tokio::test]
async fn approvals_outlive_the_process() {
    let Scene { site, one, other } = Scene::new().await;
    let id = one.ask(&doomed()).await;
    answered(other.approve(&id).await);
    let site = site.reopened().await;
    let token = Person::new(&site, "third", &DESTROYERS, "demo").await;
    assert_eq!(token.state(&id).await, "APPROVED");
}

#[tokio::test]
async fn of_two_executions_with_one_approval_one_has_an_effect() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let id = one.ask(&doomed()).await;
    answered(other.approve(&id).await);
    let (first, second) = (tokio::sync::Mutex::new(None), tokio::sync::Mutex::new(None));
    let run =
        |into| async move { *tokio::sync::Mutex::lock(into).await = Some(one.destroy(&doomed()).await) };
    site.world().together(run(&first), run(&second)).await;
    let outcomes = [first.into_inner().unwrap(), second.into_inner().unwrap()];
    let (done, not): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), not.len()), (1, 1));
    for outcome in not {
        refused(outcome, Code::FailedPrecondition, "KEY_STATE");
    }
    assert_eq!((one.state(&id).await, scene.rows().await), ("USED", 1));
}

#[tokio::test]
async fn a_denial_that_comes_first_wins_and_one_that_comes_late_is_told() {
    for denied_first in [true, false] {
        let scene = Scene::new().await;
        let Scene { site, one, other } = &scene;
        let id = one.ask(&doomed()).await;
        answered(other.approve(&id).await);
        let (done, denied) = (tokio::sync::Mutex::new(None), tokio::sync::Mutex::new(None));
        let destroying = async { *done.lock().await = Some(one.destroy(&doomed()).await) };
        let denying = async { *denied.lock().await = Some(other.deny(&id).await) };
        if denied_first {
            site.world().together(denying, destroying).await;
        } else {
            site.world().together(destroying, denying).await;
        }
        let (done, denied) = (done.into_inner().unwrap(), denied.into_inner().unwrap());
        if denied_first {
            assert_eq!(answered(denied).0.approval.unwrap().named(), "DENIED");
            assert_ne!(required(done), id, "it is asked for anew");
            assert_eq!(scene.version(1).await, "ENABLED");
        } else {
            assert_eq!(answered(done).0.sessions, 3);
            refused(denied, NOT_SO.0, NOT_SO.1);
            assert_eq!(scene.version(1).await, "DESTROY_SCHEDULED");
        }
    }
}

#[tokio::test]
async fn who_asks_for_the_same_at_the_same_time_asks_once() {
    let scene = Scene::new().await;
    // Nothing is committed until all have had the time to look.
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let hook: Hook = Arc::new(move |_| {
        let wait = Arc::clone(&wait);
        Box::pin(async move { drop(wait.acquire_owned().await.unwrap()) })
    });
    let fault = Fault { operation: Operation::Commit, number: None, effect: Effect::Wait(hook) };
    scene.site.world().engine.inject(fault);
    let asking = (0..16).map(|_| async { scene.one.ask(&doomed()).await });
    let opening = async {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
    };
    let (ids, ()) = soon(futures_util::future::join(futures_util::future::join_all(asking), opening)).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(scene.rows().await, 1);
}

#[tokio::test]
async fn what_waits_is_bounded_for_each_and_what_has_ended_makes_room() {
    let scene = Scene::new().await;
    let Scene { one, other, .. } = &scene;
    let nth = |n: usize| {
        let grace = DAY + Duration::from_secs(u64::try_from(n).unwrap());
        v1::DestroyKekRequest { grace: Some(span(grace)), ..doomed() }
    };
    let mut ids = Vec::new();
    let later = || scene.site.world().clock.advance(Duration::from_millis(1));
    for n in 0..APPROVALS_OPEN_EACH {
        later();
        ids.push(one.ask(&nth(n)).await);
    }
    let exceeded = (Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let refusal = refused(one.destroy(&nth(APPROVALS_OPEN_EACH)).await, exceeded.0, exceeded.1);
    assert_eq!(refusal.details, [("limit".to_owned(), APPROVALS_OPEN_EACH.to_string())].into());
    assert_eq!(one.ask(&nth(0)).await, ids[0], "what waits already waits on");
    other.ask(&nth(0)).await;
    for n in 0..APPROVALS_STORED {
        answered(one.deny(&ids[n]).await);
        later();
        ids.push(one.ask(&nth(APPROVALS_OPEN_EACH + n)).await);
    }
    assert_eq!(scene.rows().await, APPROVALS_STORED);
    refused(one.look(&ids[0]).await, NOT_FOUND.0, NOT_FOUND.1);
    let listed = one.list().await;
    assert_eq!((listed.len(), listed.last()), (APPROVALS_STORED, ids.last()));
}

#[tokio::test]
async fn an_approval_that_was_altered_stops_what_it_was_for() {
    let scene = Scene::new().await;
    let Scene { site, one, other } = &scene;
    let id = one.ask(&doomed()).await;
    let is_approval = |key: &strongroom::store::Key| key.as_bytes()[0] == Table::Approval as u8;
    let (key, waiting) = site.world().rows().await.into_iter().find(|(key, _)| is_approval(key)).unwrap();
    answered(other.approve(&id).await);
    answered(other.deny(&id).await);
    let mut bytes = waiting.as_bytes().to_vec();
    bytes[7] += 2;
    for row in [bytes, waiting.as_bytes()[..waiting.as_bytes().len() - 1].to_vec()] {
        site.world().tamper(&key, Some(strongroom::store::Row::from_stored(row.into()))).await;
        for outcome in [
            one.destroy(&doomed()).await.map(drop),
            other.look(&id).await.map(drop),
            other.approve(&id).await.map(drop),
        ] {
            assert_eq!(Refusal::of(&outcome.unwrap_err()).reason, "INTEGRITY_FAILURE");
        }
    }
    assert_eq!(scene.version(1).await, "ENABLED");
}

#[tokio::test]
async fn what_is_no_approval_id_is_named() {
    let Scene { site, one, .. } = &Scene::new().await;
    for id in ["", "x", "00000000-0000-0000-0000-00000000000"] {
        site.invalid(one.look(id).await, "approval_id", "approval.read").await;
        site.invalid(one.approve(id).await, "approval_id", "approval.approve").await;
        site.invalid(one.deny(id).await, "approval_id", "approval.deny").await;
    }
    let request = v1::ListApprovalsRequest { page_token: "AAAA".to_owned(), ..Default::default() };
    site.invalid(one.approvals.clone().list_approvals(request).await, "page_token", "approval.list").await;
}

#[tokio::test]
async fn an_engine_that_fails_while_something_is_asked_for_leaves_the_request_with_its_event_or_neither() {
    for operation in [Operation::MultiGet, Operation::Scan, Operation::Commit] {
        let mut number = 0;
        loop {
            number += 1;
            let scene = Scene::new().await;
            let engine = &scene.site.world().engine;
            let (at, effect) = (engine.calls(operation) + number, Effect::Fail(Failure::Busy));
            engine.inject(Fault { operation, number: Some(at), effect });
            let outcome = soon(scene.one.destroy(&doomed())).await;
            let reached = engine.calls(operation) >= at;
            engine.heal();
            let refusal = Refusal::of(&outcome.unwrap_err());
            let (what, rows) = (format!("{operation:?} {number}"), scene.rows().await);
            if !reached {
                assert_eq!((refusal.reason.as_str(), rows), (REQUIRED.1, 1), "{what}");
                break;
            }
            assert!(
                ["UNAVAILABLE", "AUDIT_UNAVAILABLE"].contains(&refusal.reason.as_str()),
                "{what}: {refusal:?}"
            );
            let events = scene.site.events_since(0).await;
            assert_eq!(
                events.iter().filter(|event| event["typ"] == "approval.request").count(),
                rows,
                "{what}"
            );
            assert_eq!(scene.version(1).await, "ENABLED", "{what}");
            let id = scene.one.ask(&doomed()).await;
            assert_eq!(scene.one.list().await, [id], "{what}");
        }
        assert!(number > 1, "{operation:?} is used");
    }
}
