//! What the bodies of several layers share.

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderValue;
use http_body::Frame;
use tonic::Status;

/// The trailers that end a response with `status`.
pub(super) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        headers.insert("grpc-status", HeaderValue::from(tonic::Code::Internal as i32));
    }
    Frame::trailers(headers)
}
