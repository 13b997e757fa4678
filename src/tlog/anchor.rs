//! The anchor's text: the latest checkpoint of every log of a store, to be kept where the store is not.
//!
//! ```text
//! anchor  head ‖ "\n" ‖ n × ( checkpoint ‖ "frontier" ‖ k × ( " " ‖ base64( subtree ) ) ‖ "\n\n" )
//! head    a signed note of: "strongroom anchor/1\n" ‖ "written " ‖ time ‖ "\n" ‖ "logs " ‖ n ‖ "\n"
//!         ‖ "sha256 " ‖ hex( SHA-256 of all that follows the head and its line end ) ‖ "\n"
//! ```
//!
//! Each checkpoint is a signed note of its own, as <https://c2sp.org/tlog-checkpoint> writes it, for whoever reads the text.
//! The frontier, of the root that is signed, is what lets a log be compared by reading only what was added since. The
//! signature of the head is over all of them: what is cut off, left out or put together of two anchors is no anchor.

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};

use super::{Checkpoint, Frontier};
use crate::crypto::{NoteError, NoteSigner, VerifierKey};

const TITLE: &str = "strongroom anchor/1";

/// A log as it is anchored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchoredLog {
    /// The log's name in checkpoints.
    pub origin: String,
    /// The tree, of which the checkpoint has size and root.
    pub frontier: Frontier,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a text is no anchor that may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnchorTextError {
    /// Its head is not signed by the key.
    #[error("{0}")]
    Head(#[from] NoteError),
    /// Its head is signed and is that of something else.
    #[error("it is no anchor of a version that is known")]
    Title,
    /// What follows the head is not what the head was signed over.
    #[error("it is cut off or was changed after it was signed")]
    Changed,
}

impl AnchoredLog {
    /// Signs a log as it is.
    #[must_use]
    pub fn sign(origin: String, frontier: Frontier, signer: NoteSigner) -> Self {
        let checkpoint = Checkpoint { origin, size: frontier.size(), root: frontier.root() };
        Self { checkpoint: checkpoint.sign(signer), origin: checkpoint.origin, frontier }
    }

    fn write(&self, out: &mut String) {
        out.push_str(&self.checkpoint);
        out.push_str("frontier");
        for subtree in self.frontier.subtrees() {
            out.push(' ');
            out.push_str(&BASE64.encode(subtree));
        }
        out.push_str("\n\n");
    }

    /// Reads what [`write`](Self::write) wrote, without its last two line ends, in its two halves.
    fn read(text: &str, rest: &str) -> Option<Self> {
        let (signatures, frontier) = rest.rsplit_once('\n')?;
        let checkpoint = format!("{text}\n\n{signatures}\n");
        let Checkpoint { origin, size, root } = Checkpoint::unverified(&checkpoint).ok()?;
        let subtrees = frontier.strip_prefix("frontier")?.split(' ').skip(1);
        let subtrees = subtrees.map(|hash| BASE64.decode(hash.as_bytes()).ok()?.try_into().ok());
        let frontier = Frontier::new(size, subtrees.collect::<Option<Vec<_>>>()?)?;
        (frontier.root() == root).then_some(Self { origin, frontier, checkpoint })
    }
}

/// Writes an anchor of these logs. `written` is a time for readers, `signer` is the store's.
#[must_use]
pub fn sign_anchor<'a>(
    logs: impl ExactSizeIterator<Item = &'a AnchoredLog>,
    written: &str,
    signer: &NoteSigner,
) -> String {
    let count = logs.len();
    let mut body = String::new();
    logs.for_each(|log| log.write(&mut body));
    let head = signer.sign(&head(written, count, &body));
    format!("{head}\n{body}")
}

/// Reads an anchor that `key` has signed.
///
/// # Errors
/// [`AnchorTextError`] says why it must not be believed.
pub fn open_anchor(text: &str, key: &VerifierKey) -> Result<Vec<AnchoredLog>, AnchorTextError> {
    // The head is a text, an empty line and its signatures; an empty line follows.
    let (end, _) = text.match_indices("\n\n").nth(1).ok_or(NoteError::Form)?;
    let (Some(signed), Some(body)) = (text.get(..=end), text.get(end + 2..)) else {
        return Err(NoteError::Form.into());
    };
    let found = key.open(signed)?;
    let written = found.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix("\nwritten "));
    let (written, _) = written.and_then(|rest| rest.split_once('\n')).ok_or(AnchorTextError::Title)?;
    let logs = read_logs(body).ok_or(AnchorTextError::Changed)?;
    if found == head(written, logs.len(), body) { Ok(logs) } else { Err(AnchorTextError::Changed) }
}

fn head(written: &str, count: usize, body: &str) -> String {
    let digest = HEXLOWER.encode(digest(&SHA256, body.as_bytes()).as_ref());
    format!("{TITLE}\nwritten {written}\nlogs {count}\nsha256 {digest}\n")
}

fn read_logs(body: &str) -> Option<Vec<AnchoredLog>> {
    let mut parts = body.split("\n\n");
    let mut logs = Vec::new();
    loop {
        match (parts.next()?, parts.next()) {
            ("", None) => return Some(logs),
            (text, Some(rest)) => logs.push(AnchoredLog::read(text, rest)?),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ControlKey;
    use crate::env::SystemEntropy;
    use crate::model::StoreId;
    use crate::tlog::leaf_hash;

    fn signer(control: &ControlKey) -> NoteSigner {
        NoteSigner::derive(control, StoreId([7; 16]), "test").unwrap()
    }

    fn logs(control: &ControlKey) -> Vec<AnchoredLog> {
        let log = |size: u64| {
            let mut frontier = Frontier::default();
            (0..size).for_each(|n| frontier.append(leaf_hash(&n.to_be_bytes())));
            let origin = format!("example/log/{size}");
            AnchoredLog::sign(origin.clone(), frontier, signer(control).under(origin))
        };
        [0, 1, 7, 300].map(log).to_vec()
    }

    #[test]
    fn an_anchor_is_read_back_and_every_checkpoint_in_it_verifies_alone() {
        let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
        let key: VerifierKey = signer(&control).verifier().parse().unwrap();
        for count in 0..=4 {
            let logs = &logs(&control)[..count];
            let text = sign_anchor(logs.iter(), "2026-11-24T00:00:00Z", &signer(&control));
            assert_eq!(open_anchor(&text, &key).as_deref(), Ok(logs));
            for log in logs {
                let key = signer(&control).under(log.origin.clone()).verifier().parse().unwrap();
                let checkpoint = Checkpoint::open(&log.checkpoint, &key).unwrap();
                assert_eq!((checkpoint.size, checkpoint.root), (log.frontier.size(), log.frontier.root()));
                assert!(text.contains(&log.checkpoint));
            }
        }
    }

    #[test]
    fn an_anchor_that_was_cut_changed_or_signed_by_another_key_is_none() {
        let control = ControlKey::generate(&SystemEntropy::new()).unwrap();
        let key: VerifierKey = signer(&control).verifier().parse().unwrap();
        let logs = logs(&control);
        let text = sign_anchor(logs.iter(), "2026-11-24T00:00:00Z", &signer(&control));
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert!(open_anchor(&text[..end], &key).is_err(), "cut at {end}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).ok();
            assert!(changed.is_none_or(|changed| open_anchor(&changed, &key).is_err()), "changed at {at}");
        }
        let fewer = sign_anchor(logs[..3].iter(), "2026-11-24T00:00:00Z", &signer(&control));
        let end = |text: &str| text.match_indices("\n\n").nth(1).unwrap().0;
        let mixed = format!("{}{}", &text[..end(&text)], &fewer[end(&fewer)..]);
        assert_eq!(open_anchor(&mixed, &key), Err(AnchorTextError::Changed));
        let other = ControlKey::generate(&SystemEntropy::new()).unwrap();
        let foreign = sign_anchor(logs.iter(), "2026-11-24T00:00:00Z", &signer(&other));
        assert_eq!(open_anchor(&foreign, &key), Err(AnchorTextError::Head(NoteError::Unsigned)));
        let receipt = format!("{}\n", signer(&control).sign("strongroom destruction receipt/1\n"));
        assert_eq!(open_anchor(&receipt, &key), Err(AnchorTextError::Title));
    }
}
