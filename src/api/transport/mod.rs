//! The accept loop: TCP, TLS and HTTP/2, up to the point where a request reaches its service.
//!
//! One [`Listener`] serves one port; data, admin and health ports differ in their service alone. It promises that no peer
//! can hold more than a bounded part of the server, whatever it sends or leaves unsent: connections, handshakes, streams,
//! header lists, resets, time without an answer to a ping, and time without taking what was sent are all bounded
//! ([`ConnectionLimits`]). It ends connections in the way of HTTP/2 (GOAWAY, then finish, then close), at their age and
//! when the server drains, so that a well-behaved client loses no call.
//!
//! It does not know who the peer is; the certificates that it presented are in the request's extensions ([`Peer`]).

mod clients;
mod connection;
mod counters;
mod limits;
mod listener;
mod pace;
mod peer;
mod preface;
mod tls;

pub use counters::{Counters, Counts};
pub use limits::ConnectionLimits;
pub use listener::{Listener, ServeReport};
pub use peer::{Closing, Peer};
pub use tls::{ClientAuth, RELOAD_EVERY, Reload, TlsError, TlsFiles, TlsSource, TlsVersions};
