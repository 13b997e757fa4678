//! The run-books of `keys/README.md`, executed as they are written, with the programs as an operator has them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use signed_note::{Note, StandardVerifier, VerifierList};

use crate::installation::Installation;

const VALUE: &[u8] = b"a statement of 2026";

/// Keeps something in the store, and returns the session.
fn keep(site: &Installation) -> String {
    let session = site.strongroom("session create --output json").ok().json()["session"].clone();
    let session = session.as_str().unwrap().to_owned();
    let words = ["entry", "put", &session, "statement"];
    crate::command::strongroom_with(site.dir(), words, VALUE).ok();
    session
}

fn kept(site: &Installation, session: &str) -> Vec<u8> {
    site.strongroom(&format!("entry get {session} statement --view full")).ok().out
}

fn refused(site: &Installation, words: &str, why: &str) {
    let run = site.strongroomd(words);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains(why), "{words}: {said}");
}

/// Waits until only the newest epoch lives, and returns the recipients that it is wrapped for.
fn rolled(site: &Installation) -> Vec<String> {
    for _ in 0..600 {
        let status = site.strongroom("root status --output json").ok().json();
        let rows = status.as_array().unwrap().clone();
        if rows.iter().all(|row| row["state"] != "rewrapping") {
            let newest = rows.iter().filter(|row| row["state"] == "newest" && row["removed"].is_null());
            return newest.map(|row| row["key_id"].as_str().unwrap().to_owned()).collect();
        }
    }
    panic!("the roll does not end");
}

/// The key ids of the living recipients of one kind.
fn recipients(site: &Installation, provider: &str) -> Vec<String> {
    let status = site.strongroom("root status --output json").ok().json();
    let rows = status.as_array().unwrap().clone();
    let living = rows.iter().filter(|row| row["provider"] == provider && row["removed"].is_null());
    living.map(|row| row["key_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lost_provider() {
    let mut site = Installation::new();
    site.serve();
    let session = keep(&site);
    site.stop();
    let copy = site.back_up("backup");

    // On an empty machine: a copy of the store and the recovery key alone.
    let mut there = site.elsewhere(&copy);
    refused(&there, "serve --config strongroom.toml", "root.key");
    there.strongroom("root recovery-key --private wrong.key").ok();
    refused(&there, "recover --config strongroom.toml --recovery-key wrong.key", "wrapped for");
    let recovery = there.path("keys/dev/recovery.key");
    fs::set_permissions(&recovery, fs::Permissions::from_mode(0o640)).unwrap();
    let recover = "recover --config strongroom.toml --recovery-key keys/dev/recovery.key";
    refused(&there, recover, "must have no access");
    fs::set_permissions(&recovery, fs::Permissions::from_mode(0o600)).unwrap();
    let whole = fs::read(&recovery).unwrap();
    fs::write(&recovery, &whole[..whole.len() / 2]).unwrap();
    refused(&there, recover, "characters");
    fs::write(&recovery, &whole).unwrap();
    assert!(!there.path("keys/dev/root.key").exists(), "what was refused left a keyring");

    let done = there.strongroomd(recover);
    assert!(done.status.success(), "{done:?}");
    there.serve();
    there.strongroom("root verify").ok();
    assert_eq!(kept(&there, &session), VALUE);
    let log = there.strongroom("audit search --system --operation root.recover --output json").ok();
    assert_eq!(log.json_lines().len(), 1, "the recovery is on record");
    there.stop();
    let again = there.strongroomd(recover);
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing was done"), "{again:?}");

    // A keyring that was cut off or that others can read is refused, and the store stays as it is.
    let keyring = there.path("keys/dev/root.key");
    let whole = fs::read(&keyring).unwrap();
    fs::write(&keyring, &whole[..whole.len() / 2]).unwrap();
    refused(&there, "serve --config strongroom.toml", "truncated");
    fs::write(&keyring, &whole).unwrap();
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&there, "serve --config strongroom.toml", "root.key");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o600)).unwrap();
    there.serve();
    assert_eq!(kept(&there, &session), VALUE);
}

#[test]
fn suspected_compromise_of_the_root() {
    let mut site = Installation::new();
    site.serve();
    let session = keep(&site);
    let old = recipients(&site, "keyring file").remove(0);
    let old_recovery = recipients(&site, "recovery key").remove(0);
    site.stop();
    let copy = site.back_up("backup");

    // A new keyring beside the old one, and a new recovery key.
    site.configure("keyring = 'keys/dev/root.key'", "[next_root]\nkeyring = 'keys/dev/next.key'");
    let made = site.strongroomd("keyring keys/dev/next.key");
    assert!(made.status.success(), "{made:?}");
    let public = site.strongroom("root recovery-key --private new-recovery.key").ok();
    let public = public.text().trim().to_owned();
    let shown = site.strongroom("root recovery-key --of new-recovery.key").ok();
    assert_eq!(shown.text().trim(), public);
    site.serve();
    site.strongroom("root migrate --dry-run").ok();
    assert_eq!(recipients(&site, "keyring file"), std::slice::from_ref(&old));
    site.strongroom("root migrate").ok();
    site.strongroom("root verify").ok();
    site.strongroom(&format!("root recipient add {public}")).ok();
    site.stop();

    // The new one alone, a new epoch, and nobody of before.
    site.configure("keyring = 'keys/dev/next.key'", "");
    site.serve();
    site.strongroom(&format!("root recipient remove {old}")).fails(1);
    site.strongroom(&format!("root recipient remove {old} --yes")).ok();
    site.strongroom(&format!("root recipient remove {old_recovery} --yes")).ok();
    let begun = site.strongroom("root rotate --yes --output json").ok().json();
    assert!(begun.as_array().unwrap().iter().any(|row| row["epoch"] == 2));
    let left = rolled(&site);
    assert!(left.contains(&public) && !left.contains(&old) && !left.contains(&old_recovery), "{left:?}");
    site.strongroom("root verify").ok();
    assert_eq!(kept(&site, &session), VALUE);
    site.stop();

    // The keys of before are destroyed: what is left opens neither the copy of before nor the store of now without its own.
    let [old_keyring, old_recovery] =
        ["keys/dev/root.key", "keys/dev/recovery.key"].map(|name| fs::read(site.path(name)).unwrap());
    for name in ["keys/dev/root.key", "keys/dev/recovery.key"] {
        fs::remove_file(site.path(name)).unwrap();
    }
    let now = site.path("data");
    let moved = site.path("of-now");
    fs::rename(&now, &moved).unwrap();
    fs::rename(&copy, &now).unwrap();
    refused(&site, "serve --config strongroom.toml", "wrapped for");
    refused(&site, "recover --config strongroom.toml --recovery-key new-recovery.key", "wrapped for");
    fs::rename(&now, &copy).unwrap();
    fs::rename(&moved, &now).unwrap();

    // Who kept the old keys does not open the store of now, but the copy of before: so the receipts say.
    fs::write(site.path("keys/dev/root.key"), &old_keyring).unwrap();
    fs::write(site.path("stolen-recovery.key"), &old_recovery).unwrap();
    for name in ["keys/dev/root.key", "stolen-recovery.key"] {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    site.configure("keyring = 'keys/dev/root.key'", "");
    refused(&site, "serve --config strongroom.toml", "wrapped for");
    refused(&site, "recover --config strongroom.toml --recovery-key stolen-recovery.key", "wrapped for");
    let mut thief = site.elsewhere(&copy);
    fs::write(thief.path("keys/dev/root.key"), &old_keyring).unwrap();
    fs::set_permissions(thief.path("keys/dev/root.key"), fs::Permissions::from_mode(0o600)).unwrap();
    thief.serve();
    assert_eq!(kept(&thief, &session), VALUE);
}

#[test]
fn restore_from_a_copy() {
    let mut site = Installation::new();
    site.serve();
    let session = keep(&site);
    site.stop();
    let copy = site.back_up("backup");
    site.serve();
    site.strongroom("root rotate --yes").ok();
    rolled(&site);
    site.stop();

    // The provider's key is as it was: the copy of before the roll opens with its own epoch, and is told from the store of now.
    let mut there = site.elsewhere(&copy);
    fs::copy(site.path("keys/dev/root.key"), there.path("keys/dev/root.key")).unwrap();
    there.serve();
    there.strongroom("root verify").ok();
    assert_eq!(kept(&there, &session), VALUE);
    let epochs = there.strongroom("root status --output json").ok().json();
    assert!(epochs.as_array().unwrap().iter().all(|row| row["epoch"] == 1));
}

#[test]
fn a_receipt_is_verified_by_others_and_names_who_opens_old_copies() {
    let mut site = Installation::new();
    site.serve();
    keep(&site);
    site.strongroom("key rotate").ok();
    site.strongroom("key receipt 1").fails(1);
    site.strongroom("key destroy 1 --force --sessions 1 --yes").ok();
    let verifier = site.strongroom("status --output json").ok().json()["receipt_verifier"].clone();
    let verifier = verifier.as_str().unwrap().to_owned();
    let check = |receipt: &str| {
        let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&verifier).unwrap())]);
        Note::from_bytes(receipt.as_bytes()).unwrap().verify(&known).is_ok()
    };
    let scheduled = site.strongroom("key receipt 1").ok();
    assert!(check(scheduled.text()) && scheduled.text().contains("to be destroyed at "));
    site.strongroom("key cancel-destroy 1").ok();
    site.strongroom("key destroy 1 --force --sessions 1 --no-grace --yes").ok();
    let receipt = site.strongroom("key receipt 1").ok();
    let text = receipt.text();
    assert!(check(text) && !check(&text.replace("key version 1", "key version 2")));
    for recipient in ["keyring file", "recovery key"].iter().flat_map(|kind| recipients(&site, kind)) {
        assert!(text.contains(&format!("{recipient}\n")), "{text}");
    }
}
