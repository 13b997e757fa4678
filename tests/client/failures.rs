//! What the client does when things break.

use std::time::Duration;

use strongroom::client::{CreateSession, Expect, Origin, Retries, SessionHandle, Strongroom, View};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake::{Fake, Fault, refuse};

/// Retries of the real number but without real pauses.
fn quick() -> Retries {
    Retries { pause: Duration::from_millis(1), pause_max: Duration::from_millis(5), ..Retries::default() }
}

async fn session(client: &Strongroom) -> SessionHandle {
    client.tenant("demo").unwrap().create_session(CreateSession::default()).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_retry_carries_the_same_request_id_and_the_work_is_done_once() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    fake.state.fail(Fault::LoseAnswer);
    let put = session.put("k", "v").expect(Expect::Absent).await.unwrap();
    assert_eq!(put.revision.get(), 1);
    let seen = fake.state.seen("PutEntry");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].request_id, seen[1].request_id);
    assert_eq!(seen[0].request_id, seen[0].call_id);
    assert_eq!(seen[0].request_id.len(), 36);
    session.put("k", "w").await.unwrap();
    assert_ne!(fake.state.seen("PutEntry")[2].request_id, seen[0].request_id);
}

#[tokio::test]
async fn an_outage_ends_a_call_after_four_attempts() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    (0..4).for_each(|_| fake.state.fail(Fault::Refuse(refuse(Code::Unavailable, "UNAVAILABLE", &[]))));
    let refused = session.read("k", View::Full).await.unwrap_err();
    assert!(refused.is_unavailable());
    assert_eq!(refused.call().unwrap().origin(), Origin::Server);
    assert_eq!(fake.state.seen("ReadEntry").len(), 4);
}

#[tokio::test]
async fn refusals_that_stay_are_not_repeated() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    let lasting = [
        Code::Aborted,
        Code::AlreadyExists,
        Code::DataLoss,
        Code::FailedPrecondition,
        Code::Internal,
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::ResourceExhausted,
    ];
    for (calls, code) in (1..).zip(lasting) {
        fake.state.fail(Fault::Refuse(Status::new(code, "stays")));
        assert_eq!(session.read("k", View::Full).await.unwrap_err().code(), code);
        assert_eq!(fake.state.seen("ReadEntry").len(), calls, "{code:?}");
    }
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_when_it_says_so() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    session.put("k", "v").await.unwrap();
    let mut details = ErrorDetails::with_error_info("OVERLOADED", "strongroom.v1", []);
    details.set_retry_info(Some(Duration::from_millis(30)));
    fake.state.fail(Fault::Refuse(Status::with_error_details(Code::ResourceExhausted, "full", details)));
    let before = tokio::time::Instant::now();
    session.read("k", View::Full).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn the_budget_turns_retries_off_in_an_outage() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    for _ in 0..20 {
        (0..4).for_each(|_| fake.state.fail(Fault::Refuse(Status::unavailable("down"))));
        session.read("k", View::Full).await.unwrap_err();
    }
    // 12 calls of 4 attempts use up 48 of the 50; the next gets one retry, and then each is one attempt.
    assert_eq!(fake.state.seen("ReadEntry").len(), 12 * 4 + 2 + 7);
}

#[tokio::test]
async fn a_rotated_token_is_read_again_when_the_old_one_is_refused() {
    let fake = Fake::start().await;
    let session = session(&fake.client()).await;
    fake.state.require("srt_second");
    std::fs::write(fake.token_file(), "srt_second").unwrap();
    session.put("k", "v").await.unwrap();
    let used: Vec<_> = fake.state.seen("PutEntry").into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(used, ["Bearer srt_first", "Bearer srt_second"]);
}

#[tokio::test]
async fn a_refused_token_that_did_not_change_is_not_sent_again() {
    let fake = Fake::start().await;
    let session = session(&fake.client()).await;
    fake.state.require("srt_other");
    assert!(session.put("k", "v").await.unwrap_err().is_unauthenticated());
    assert_eq!(fake.state.seen("PutEntry").len(), 1);
}

#[tokio::test]
async fn the_deadline_travels_and_ends_a_call_that_hangs() {
    let fake = Fake::start().await;
    let client = fake.builder().timeout(Duration::from_millis(200)).build().unwrap();
    let session = session(&client.with_timeout(Duration::from_secs(5))).await;
    let session = client.tenant("demo").unwrap().session(session.id(), None);
    fake.state.fail(Fault::Hang);
    let late = session.read("k", View::Full).await.unwrap_err();
    assert!(late.is_deadline_exceeded());
    assert_eq!(late.call().unwrap().origin(), Origin::Deadline);
    let sent = fake.state.seen("ReadEntry")[0].timeout.clone();
    let micros: u64 = sent.strip_suffix('u').unwrap_or_else(|| panic!("{sent}")).parse().unwrap();
    assert!((100_000..=200_000).contains(&micros), "{micros}");
}

#[tokio::test]
async fn a_cut_connection_is_made_again_within_the_call() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    session.put("k", "v").await.unwrap();
    fake.cut();
    assert_eq!(&session.read("k", View::Full).await.unwrap().value[..], b"v");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_a_mutation_repeats_it_under_its_id() {
    let fake = Fake::start().await;
    let session = session(&fake.builder().retries(quick()).build().unwrap()).await;
    fake.state.fail(Fault::Hang);
    let put = tokio::spawn(session.put("k", "v").into_future());
    while fake.state.seen("PutEntry").is_empty() {
        tokio::task::yield_now().await;
    }
    fake.cut();
    assert_eq!(put.await.unwrap().unwrap().revision.get(), 1);
    let seen = fake.state.seen("PutEntry");
    assert_eq!((seen.len(), seen[0].request_id == seen[1].request_id), (2, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_retire_one_after_another_lose_no_call() {
    let mut fake = Fake::start().await;
    // A retry that counts would wait beyond the deadline: a call that the server had not taken up is sent again at once.
    let slow = Duration::from_secs(30);
    let client = fake.builder().retries(Retries { pause: slow, pause_max: slow, ..quick() }).build().unwrap();
    let session = session(&client).await;
    let callers = (0..8).map(|caller| {
        let session = session.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                session.put(format!("{caller}-{number}"), "v").await.unwrap();
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for round in 1..=4 {
        while fake.state.seen("PutEntry").len() < round * 150 && !callers.iter().all(|c| c.is_finished()) {
            tokio::task::yield_now().await;
        }
        fake.serve().await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(fake.connections() >= 2);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_when_asked_to() {
    let mut fake = Fake::start().await;
    let patient = Retries { wait_for_connection: true, ..quick() };
    let session = session(&fake.builder().retries(patient).build().unwrap()).await;
    session.put("k", "v").await.unwrap();
    fake.close();
    let before = fake.connections();
    let read = tokio::spawn(session.read("k", View::Full).into_future());
    while fake.connections() < before + 3 {
        tokio::task::yield_now().await;
    }
    fake.serve().await;
    assert_eq!(&read.await.unwrap().unwrap().value[..], b"v");
}

#[tokio::test]
async fn failed_connects_are_not_repeated_at_once() {
    let fake = Fake::start().await;
    let once = fake.builder().retries(Retries::none()).build().unwrap();
    let session = once.tenant("demo").unwrap().session("srs_1", None);
    fake.close();
    for _ in 0..50 {
        let refused = session.read("k", View::Full).await.unwrap_err();
        assert_eq!(refused.call().unwrap().origin(), Origin::NotConnected, "{refused}");
    }
    assert!(fake.connections() < 10, "{}", fake.connections());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_named() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let client =
        fake.builder().ca_file(other.dir.path().join("ca.pem")).retries(Retries::none()).build().unwrap();
    let refused = client.tenant("demo").unwrap().create_session(CreateSession::default()).await.unwrap_err();
    assert_eq!(refused.call().unwrap().origin(), Origin::NotConnected);
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn a_replaced_ca_file_is_honoured_at_the_next_connection() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let ca = other.dir.path().join("ca.pem");
    let client = fake.builder().ca_file(&ca).retries(Retries::none()).build().unwrap();
    let tenant = client.tenant("demo").unwrap();
    assert!(tenant.create_session(CreateSession::default()).await.is_err());
    std::fs::copy(fake.dir.path().join("ca.pem"), &ca).unwrap();
    let patient = client.with_retries(Retries { wait_for_connection: true, ..quick() });
    assert!(patient.tenant("demo").unwrap().create_session(CreateSession::default()).await.is_ok());
}
