//! Client certificates: which are let in, which are let in no more, and what happens to connections that are open.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use strongroom::api::transport::{ClientAuth, TlsError, TlsSource, TlsVersions};
use tonic::transport::Channel;

use crate::setup::{Authority, PATIENCE, Plan, Server, put, soon, until};
use strongroom::proto::v1::context_service_client::ContextServiceClient;

/// An authority of clients: it can revoke, and it may have expired.
struct Clients {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Clients {
    fn new() -> Self {
        Self::until(2100)
    }

    fn until(year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// A certificate of this number: chain and key as PEM.
    fn issue(&self, number: u64, end: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(number));
        params.not_after = date_time_ymd(end, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The list that revokes these numbers.
    fn list(&self, revoked: &[u64], end: i32) -> String {
        let revoked = revoked.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(end, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer: &Issuer<'static, KeyPair> = &self.issuer;
        params.signed_by(issuer).unwrap().pem().unwrap()
    }
}

/// A server that demands certificates of `clients` and knows the list `revoked`.
async fn server(clients: &Clients, revoked: Option<String>) -> Server {
    let plan = Plan {
        clients: Some(ClientAuth::Required),
        client_authorities: Some(clients.issuer.pem()),
        revoked,
        ..Plan::default()
    };
    Server::start(plan).await
}

async fn call(client: &mut ContextServiceClient<Channel>) -> bool {
    soon(client.put_entry(put("echo", 1))).await.is_ok()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_one_beside_it_is_not() {
    let clients = Clients::new();
    let server = server(&clients, Some(clients.list(&[7], 2100))).await;
    assert!(call(&mut server.client_with(Some(clients.issue(8, 2100)))).await);
    assert!(!call(&mut server.client_with(Some(clients.issue(7, 2100)))).await);
}

#[tokio::test]
async fn a_certificate_that_no_list_covers_is_refused_where_there_are_lists() {
    let (clients, others) = (Clients::new(), Clients::new());
    for list in [others.list(&[], 2100), clients.list(&[], 2021)] {
        let server = server(&clients, Some(list)).await;
        assert!(!call(&mut server.client_with(Some(clients.issue(8, 2100)))).await);
    }
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_an_expired_authority_are_refused() {
    let clients = Clients::new();
    let live = server(&clients, None).await;
    assert!(call(&mut live.client_with(Some(clients.issue(1, 2100)))).await);
    assert!(!call(&mut live.client_with(Some(clients.issue(2, 2021)))).await);
    let expired = Clients::until(2021);
    let server = server(&expired, None).await;
    assert!(!call(&mut server.client_with(Some(expired.issue(1, 2100)))).await);
}

#[tokio::test]
async fn a_certificate_that_is_revoked_while_its_connection_is_open_ends_that_connection_alone() {
    let clients = Clients::new();
    let server = server(&clients, Some(clients.list(&[], 2100))).await;
    let (mut good, mut bad) =
        (server.client_with(Some(clients.issue(8, 2100))), server.client_with(Some(clients.issue(7, 2100))));
    assert!(call(&mut good).await && call(&mut bad).await);
    std::fs::write(server.authority.path("revoked.pem"), clients.list(&[7], 2100)).unwrap();
    server.tls.reload().unwrap();
    until("the connection is cut off", || server.counters.counts().severed == 1).await;
    assert!(!call(&mut bad).await);
    assert!(call(&mut good).await);
    assert_eq!((server.counters.counts().severed, server.counters.counts().opened), (1, 2));
}

#[tokio::test]
async fn an_authority_that_is_trusted_no_more_ends_the_connections_of_its_clients() {
    let clients = Clients::new();
    let server = server(&clients, None).await;
    let mut client = server.client_with(Some(clients.issue(1, 2100)));
    assert!(call(&mut client).await);
    std::fs::write(server.authority.path("clients.pem"), Clients::new().issuer.pem()).unwrap();
    server.tls.reload().unwrap();
    until("the connection is cut off", || server.counters.counts().severed == 1).await;
    assert!(!call(&mut client).await);
}

#[test]
fn a_damaged_list_is_an_error_and_counted_and_the_last_good_one_stays() {
    let (authority, clients) = (Authority::new(), Clients::new());
    std::fs::write(authority.path("revoked.pem"), clients.list(&[7], 2100)).unwrap();
    let mut files = authority.files(ClientAuth::Required(authority.path("ca.pem")), TlsVersions::Only13);
    files.revoked = Some(authority.path("revoked.pem"));
    let source = TlsSource::open(files).unwrap();
    let before = source.current();
    std::fs::write(authority.path("revoked.pem"), "nothing").unwrap();
    assert!(matches!(source.reload(), Err(TlsError::NoCertificate { .. })));
    assert!(Arc::ptr_eq(&before, &source.current()));
}

#[tokio::test]
async fn certificates_of_server_and_clients_are_replaced_ten_times_under_load_and_no_call_fails() {
    let first = Clients::new();
    let server = server(&first, None).await;
    let watch =
        tokio::spawn(Arc::clone(&server.tls).watch(Duration::from_millis(2), server.shutdown.clone()));
    let mut lasting = server.client_with(Some(first.issue(1, 2100)));
    let mut newest = first.issue(2, 2100);
    let mut shown = server.tls.current();
    for _ in 0..10 {
        let next = Clients::new();
        // The new authority beside the first one, as a rotation begins; and another certificate for the server.
        let bundle = format!("{}{}", first.issuer.pem(), next.issuer.pem());
        std::fs::write(server.authority.path("clients.pem"), bundle).unwrap();
        server.authority.renew();
        let replaced = async {
            loop {
                assert!(call(&mut lasting).await, "a call over a lasting connection failed");
                let mut new = server.client_with(Some(first.issue(4, 2100)));
                assert!(call(&mut new).await, "a call over a new connection failed");
                let now = server.tls.current();
                if !Arc::ptr_eq(&shown, &now) && server.tls.fault().is_none() {
                    shown = now;
                    let fresh = next.issue(3, 2100);
                    if call(&mut server.client_with(Some(fresh.clone()))).await {
                        return fresh;
                    }
                }
            }
        };
        newest = tokio::time::timeout(PATIENCE, replaced).await.expect("it is replaced");
    }
    assert!(call(&mut server.client_with(Some(newest))).await);
    server.shutdown.cancel();
    soon(watch).await.unwrap();
}
