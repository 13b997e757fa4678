//! Tests of dev mode's material.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Mutex;

use super::*;
use crate::env::SystemEntropy;
use crate::model::{Duration, Timestamp};

struct At(Mutex<Timestamp>);

impl At {
    fn new() -> Self {
        Self(Mutex::new(Timestamp::from_millis(1_800_000_000_000)))
    }

    fn advance_days(&self, days: u64) {
        let mut now = self.0.lock().unwrap();
        *now = now.after(Duration::from_secs(days * 24 * 3600));
    }
}

impl Clock for At {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn write_closed(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn root_keys(paths: &DevPaths) -> io::Result<()> {
    write_closed(&paths.root_key, "root")?;
    write_closed(&paths.recovery_key, "recovery")?;
    write_closed(&paths.recovery_pub, "public")
}

fn start(dir: &Path, clock: &At) -> Result<DevMaterial, DevError> {
    prepare(dir, &SystemEntropy::new(), clock, root_keys)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every file below the directory, with its content.
fn content(paths: &DevPaths) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(&paths.dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_first_start_makes_everything_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let material = start(dir.path(), &At::new()).unwrap();
    material.write_profile("127.0.0.1:7443".parse().unwrap(), "127.0.0.1:7444".parse().unwrap()).unwrap();
    assert_eq!(mode(&material.paths.dir), 0o700);
    let names: Vec<_> = content(&material.paths)
        .into_iter()
        .map(|(path, _)| {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            path.file_name().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        names.join(" "),
        ".lock admin.token app.token ca.key ca.pem profile.toml reader.token recovery.key recovery.pub root.key server.key server.pem"
    );
    assert!(material.new_certificate);
}

#[test]
fn tokens_have_their_form_their_scopes_and_no_debug() {
    let dir = tempfile::tempdir().unwrap();
    let material = start(dir.path(), &At::new()).unwrap();
    let [app, admin, reader] = material.tokens.as_slice() else { panic!() };
    for token in &material.tokens {
        assert_eq!(fs::read_to_string(material.paths.token(token.name)).unwrap(), token.secret());
        let secret = token.secret().strip_prefix("srt_").unwrap();
        assert_eq!((secret.len(), BASE64URL_NOPAD.decode(secret.as_bytes()).unwrap().len()), (43, 32));
        assert!(!format!("{material:?}").contains(secret));
    }
    let demo = TenantSet::Only([TenantName::new("demo").unwrap()].into());
    assert_eq!(app.scopes.iter().map(Scope::name).collect::<Vec<_>>(), ["read", "read-full", "write"]);
    assert_eq!(reader.scopes.iter().collect::<Vec<_>>(), [Scope::Read]);
    assert_eq!((admin.scopes.iter().count(), &admin.tenants), (Scope::ALL.len(), &TenantSet::All));
    assert_eq!((&app.tenants, &reader.tenants), (&demo, &demo));
    assert_ne!(app.secret(), reader.secret());
}

#[test]
fn a_second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = At::new();
    let first = start(dir.path(), &clock).unwrap();
    let before = content(&first.paths);
    clock.advance_days(79);
    let second = start(dir.path(), &clock).unwrap();
    assert!(!second.new_certificate);
    assert_eq!(content(&second.paths), before);
    assert_eq!(first.tokens[0].secret(), second.tokens[0].secret());
}

#[test]
fn a_certificate_with_less_than_ten_days_left_is_renewed_under_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let clock = At::new();
    let paths = start(dir.path(), &clock).unwrap().paths;
    let (authority, certificate) = (fs::read(&paths.ca).unwrap(), fs::read(&paths.certificate).unwrap());
    clock.advance_days(81);
    assert!(start(dir.path(), &clock).unwrap().new_certificate);
    assert_eq!(fs::read(&paths.ca).unwrap(), authority);
    assert_ne!(fs::read(&paths.certificate).unwrap(), certificate);
    clock.advance_days(79);
    assert!(!start(dir.path(), &clock).unwrap().new_certificate);
}

#[test]
fn a_start_that_was_cut_off_after_any_file_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = At::new();
    let paths = start(dir.path(), &clock).unwrap().paths;
    for (gone, _) in content(&paths) {
        fs::remove_file(&gone).unwrap();
        fs::write(paths.dir.join(".new-server.key"), "half").unwrap();
        start(dir.path(), &clock).unwrap();
        assert!(gone.exists(), "{}", gone.display());
        assert!(!start(dir.path(), &clock).unwrap().new_certificate, "{}", gone.display());
    }
}

#[test]
fn a_certificate_of_another_authority_or_key_is_replaced() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = At::new();
    let paths = start(dir.path(), &clock).unwrap().paths;
    let foreign = start(other.path(), &clock).unwrap().paths;
    for (from, to) in [
        (&foreign.certificate, &paths.certificate),
        (&foreign.key, &paths.key),
        (&foreign.ca, &paths.ca),
        (&foreign.ca_key, &paths.ca_key),
    ] {
        fs::copy(from, to).unwrap();
        let renewed = start(dir.path(), &clock).unwrap().new_certificate;
        // A certificate of the authority's own key replaces a foreign one of the same name, and vouches for the same server.
        assert_eq!(renewed, to != &paths.ca, "{}", to.display());
        assert!(!start(dir.path(), &clock).unwrap().new_certificate);
    }
}

#[test]
fn files_that_others_could_have_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = start(dir.path(), &At::new()).unwrap().paths;
    for secret in
        [&paths.dir, &paths.root_key, &paths.recovery_key, &paths.ca_key, &paths.key, &paths.token("app")]
    {
        let closed = mode(secret);
        fs::set_permissions(secret, fs::Permissions::from_mode(closed | 0o040)).unwrap();
        let error = start(dir.path(), &At::new()).unwrap_err();
        assert!(matches!(&error, DevError::OpenToOthers { path, .. } if path == secret), "{error}");
        fs::set_permissions(secret, fs::Permissions::from_mode(closed)).unwrap();
    }
    start(dir.path(), &At::new()).unwrap();
}

#[test]
fn links_and_damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = start(dir.path(), &At::new()).unwrap().paths;
    let token = paths.token("reader");
    for damaged in ["", "srt_", "srt_AAAA", "hunter2"] {
        fs::write(&token, damaged).unwrap();
        assert!(matches!(start(dir.path(), &At::new()), Err(DevError::Malformed { .. })), "{damaged}");
    }
    fs::remove_file(&token).unwrap();
    symlink(paths.token("app"), &token).unwrap();
    assert!(matches!(start(dir.path(), &At::new()), Err(DevError::NotA { .. })));
}

#[test]
fn a_missing_root_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = |_: &DevPaths| Ok::<(), io::Error>(());
    let error = prepare(dir.path(), &SystemEntropy::new(), &At::new(), nothing).unwrap_err();
    assert!(matches!(&error, DevError::Io { path, .. } if path.ends_with("root.key")), "{error}");
}

#[test]
fn the_authority_vouches_for_loopback_alone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = At::new();
    let paths = start(dir.path(), &clock).unwrap().paths;
    let authority = rcgen::KeyPair::from_pem(&fs::read_to_string(&paths.ca_key).unwrap()).unwrap();
    let mine = certificates::issue_for(&authority, "bank.example", clock.now());
    assert!(!certificates::is_trusted(&paths, &mine, "bank.example", clock.now()));
    let local = certificates::issue_for(&authority, "localhost", clock.now());
    assert!(certificates::is_trusted(&paths, &local, "localhost", clock.now()));
}
