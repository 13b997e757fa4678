//! The generated clients over whatever carries them, and what they answer in a form that tests can compare.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use strongroom::proto::v1::admin_service_client::AdminServiceClient;
use strongroom::proto::v1::approval_service_client::ApprovalServiceClient;
use strongroom::proto::v1::context_service_client::ContextServiceClient;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};

/// Largest message that a test sends or takes: above every bound of the server.
const MESSAGE_BYTES: usize = 64 << 20;

/// What carries calls.
pub type Wire = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, WireError>;

/// A call could not be carried. A type of its own, because futures over a boxed error are not `Send` everywhere.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WireError(#[from] BoxError);

/// A client of the data plane.
pub type Context = ContextServiceClient<Wire>;
/// A client of the control plane.
pub type Control = AdminServiceClient<Wire>;
/// A client of what waits for a second person.
pub type Approving = ApprovalServiceClient<Wire>;

/// Lets `service` carry calls that present `token`.
pub fn wire<S, E>(service: S, token: Option<&str>) -> Wire
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = E, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    E: Into<BoxError> + 'static,
{
    let bearer = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    BoxCloneSyncService::new(service.map_err(|error| WireError(error.into())).map_request(
        move |mut request: http::Request<Body>| {
            if let Some(bearer) = &bearer {
                request.headers_mut().insert(AUTHORIZATION, bearer.clone());
            }
            request
        },
    ))
}

pub fn context(wire: Wire) -> Context {
    ContextServiceClient::new(wire)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

pub fn control(wire: Wire) -> Control {
    AdminServiceClient::new(wire)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

pub fn approving(wire: Wire) -> Approving {
    ApprovalServiceClient::new(wire)
}

/// Where a call is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub log: String,
    pub sequence: u64,
}

/// Where metadata say that a call is on record.
pub fn stamp(metadata: &MetadataMap) -> Option<Stamp> {
    let log = metadata.get("strongroom-audit-log")?.to_str().unwrap().to_owned();
    let sequence = metadata.get("strongroom-audit-seq")?.to_str().unwrap().parse().unwrap();
    Some(Stamp { log, sequence })
}

/// A refusal as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// Of the `ErrorInfo`, whose domain must be ours.
    pub reason: String,
    pub text: String,
    /// Of the `ErrorInfo`.
    pub details: BTreeMap<String, String>,
    /// The fields that are blamed.
    pub fields: Vec<String>,
    pub retry_after: Option<std::time::Duration>,
    /// The names of the response's metadata.
    pub metadata: Vec<String>,
    pub stamp: Option<Stamp>,
}

impl Refusal {
    /// Takes a status, which must have the details that every refusal has.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().unwrap_or_else(|| panic!("no reason in {status:?}"));
        assert_eq!(reason.domain, "strongroom.v1");
        let fields = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
        let mut metadata: Vec<String> = status
            .metadata()
            .iter()
            .map(|pair| match pair {
                tonic::metadata::KeyAndValueRef::Ascii(key, _) => key.as_str().to_owned(),
                tonic::metadata::KeyAndValueRef::Binary(key, _) => key.as_str().to_owned(),
            })
            .collect();
        metadata.sort();
        Self {
            code: status.code(),
            reason: reason.reason.clone(),
            text: status.message().to_owned(),
            details: reason.metadata.clone().into_iter().collect(),
            fields: fields.iter().map(|violation| violation.field.clone()).collect(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            metadata,
            stamp: stamp(status.metadata()),
        }
    }

    /// The same without the sequence number: what must not differ between things that must not be told apart.
    pub fn without_place(&self) -> Self {
        let stamp = self.stamp.clone().map(|stamp| Stamp { sequence: 0, ..stamp });
        Self { stamp, ..self.clone() }
    }
}

/// The message of a call that succeeded and is on record.
#[track_caller]
pub fn answered<T>(outcome: Result<Response<T>, Status>) -> (T, Stamp) {
    let response = outcome.unwrap_or_else(|status| panic!("refused: {status:?}"));
    let stamp = stamp(response.metadata()).expect("an answer says where it is on record");
    (response.into_inner(), stamp)
}

/// The refusal of a call, with the code and the reason that it must have.
#[track_caller]
pub fn refused<T>(outcome: Result<Response<T>, Status>, code: Code, reason: &str) -> Refusal {
    let status = outcome.err().expect("the call is refused");
    let refusal = Refusal::of(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{}", refusal.text);
    refusal
}
