use crate::support::{Daemon, Inside, Login, answered};
use strongroom::client::{CreateSession, View};
use strongroom::proto::v1;

#[tokio::test]
async fn what_was_put_is_there_after_a_kill() {
    let mut daemon = Daemon::start().await;
    let session = daemon
        .sdk(Login::App)
        .tenant("demo")
        .unwrap()
        .create_session(CreateSession::default())
        .await
        .unwrap();
    session.put("a", "b").await.unwrap();
    daemon.kill().await;
    daemon.restart().await;
    let again = daemon.sdk(Login::App).tenant("demo").unwrap().session(session.id(), None);
    assert_eq!(again.read("a", View::Full).await.unwrap().value, "b");
    let status = daemon.terminate().await;
    assert!(status.success(), "{}", daemon.logs());
    println!("{}", daemon.logs());
}

#[tokio::test]
async fn inside() {
    let inside = Inside::open().await;
    let made = inside
        .context(Login::App)
        .create_session(v1::CreateSessionRequest { tenant: "demo".into(), ..Default::default() })
        .await;
    let (made, stamp) = answered(made);
    println!("{:?} {stamp:?}", made.session.unwrap().session_id);
}
