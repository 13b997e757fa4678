//! Every label that separates one use of a key from another.
//!
//! No label is a prefix of another; a test holds that. Each ends in its version, so that a change of meaning is a change of
//! label.

/// Begins the context of every sealed record.
pub(super) const RECORD: &str = "strongroom/v1";
/// Names of sessions, entries, streams and tenants become row keys.
pub(super) const BLIND: &str = "strongroom blind names/1";
/// Identifiers in the access log become pseudonyms.
pub(super) const PSEUDONYM: &str = "strongroom audit pseudonym/1";
/// Ids of events are made unguessable.
pub(super) const EVENT_ID: &str = "strongroom event id/1";
/// The commitment by which an unwrapped root epoch key is recognised.
pub(super) const REK_COMMITMENT: &str = "strongroom rek commitment/1";
/// The key between an ephemeral X25519 key and a recovery recipient.
pub(super) const RECIPIENT: &str = "strongroom recovery recipient/1";
/// The seed of a key that signs for a store.
pub(super) const SIGNING: &str = "strongroom signing key/1";
/// Begins what is said beside key material that is wrapped for the store.
pub(super) const KEY_IMPORT: &str = "strongroom key import/1";
/// Begins what is said beside key material that is wrapped for somebody outside.
pub(super) const KEY_EXPORT: &str = "strongroom key export/1";

/// All of them, for the test that holds them apart.
#[cfg(test)]
pub(super) const ALL: [&str; 9] =
    [RECORD, BLIND, PSEUDONYM, EVENT_ID, REK_COMMITMENT, RECIPIENT, SIGNING, KEY_IMPORT, KEY_EXPORT];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn no_label_is_a_prefix_of_another() {
        for (n, one) in ALL.iter().enumerate() {
            for (m, other) in ALL.iter().enumerate() {
                assert!(n == m || !other.starts_with(one), "{one:?} begins {other:?}");
            }
        }
    }
}
