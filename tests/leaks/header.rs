//! How a header's value travels: compressed with the fixed code of HPACK (RFC 7541, 5.2).

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncReadExt as _;

/// An `authorization` header's value as clients send it, without its last byte, which depends on the padding.
pub async fn compressed(value: &str) -> Vec<u8> {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let (mut send, connection) = h2::client::handshake(client).await.unwrap();
    let running = tokio::spawn(connection);
    let request = Request::post("https://localhost/").header("authorization", value).body(()).unwrap();
    let (_response, _body) = send.send_request(request, true).unwrap();
    let mut sent = Vec::new();
    let found = loop {
        let mut part = [0; 4096];
        let length = server.read(&mut part).await.unwrap();
        sent.extend_from_slice(&part[..length]);
        if let Some(found) = literal(&sent) {
            break found;
        }
    };
    running.abort();
    drop(Bytes::from(sent));
    found
}

/// The value of the literal whose name is number 23 of the static table.
fn literal(sent: &[u8]) -> Option<Vec<u8>> {
    const INDEXED: [u8; 1] = [0x40 | 23];
    const NOT_INDEXED: [u8; 2] = [0x0f, 23 - 15];
    const NEVER_INDEXED: [u8; 2] = [0x1f, 23 - 15];
    const COMPRESSED: u8 = 0x80;
    for name in [&INDEXED[..], &NOT_INDEXED, &NEVER_INDEXED] {
        let starts = sent.windows(name.len()).enumerate().filter(|(_, part)| *part == name);
        for (at, _) in starts {
            let value = &sent[at + name.len()..];
            let length = usize::from(value.first()? & !COMPRESSED);
            if value[0] & COMPRESSED != 0 && (30..80).contains(&length) && value.len() > length {
                return Some(value[1..length].to_vec());
            }
        }
    }
    None
}
