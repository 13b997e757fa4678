//! The keyring file: a root key in a file of its owner's.
//!
//! ```text
//! strongroom-keyring 1
//! # any number of lines of comment
//! id 16 bytes, hex
//! key 32 bytes, base64
//! sum the first 8 bytes of SHA-256 over everything above this line, hex
//! ```
//!
//! The file is refused when group or others can read or write it, and when it is truncated, damaged or of another version:
//! a wrong key would be told only by a store that does not open. It is never overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::provider::{
    PROVIDER_SECRET_BYTES, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
use super::{KeyFileProblem, KeyringError};
use crate::crypto::{Header, KeyId, Kind, Place, ProviderKey, Secret, WrappableKey as _, open, seal};
use crate::env::Entropy;
use crate::model::{StoreId, TenantRef};

const HEADER: &[u8] = b"strongroom-keyring ";
const VERSION: &[u8] = b"1";
const COMMENT: &[u8] = b"\
# The root key of a Strongroom store. Who can read this file can read the store.
# Keep a copy in a safe place: without it, or a recovery key, the store cannot be opened again.
";
/// Largest keyring file: ten times what one needs.
const FILE_BYTES: usize = 4096;
const SUM_BYTES: usize = 8;
/// Bound into what a keyring file's key wraps.
const PLACE: &[u8] = b"root provider";

/// A root key that was read from a keyring file.
pub struct KeyFile {
    path: PathBuf,
    id: KeyId,
    key: ProviderKey,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({})", self.path.display())
    }
}

impl KeyFile {
    /// Makes a keyring file with a fresh key: mode 0600, in a directory that is made with mode 0700 if there is none.
    ///
    /// The file appears whole and durable, or not at all.
    ///
    /// # Errors
    /// [`KeyringError::KeyFile`] with [`KeyFileProblem::Exists`] when there is a file already, which stays as it is;
    /// [`KeyringError::Permissions`] when others can write to the directory.
    pub fn create(path: &Path, entropy: Arc<dyn Entropy>) -> Result<Self, KeyringError> {
        let mut id = KeyId([0; 16]);
        entropy.fill(&mut id.0)?;
        let key = ProviderKey::generate(entropy.as_ref())?;
        let directory = directory(path);
        prepare(directory)?;
        let written = publish(path, directory, &id, &write(id, &key));
        written.map_err(|problem| KeyringError::KeyFile { path: path.to_owned(), problem })?;
        Ok(Self { path: path.to_owned(), id, key, entropy })
    }

    /// Reads a keyring file.
    ///
    /// # Errors
    /// [`KeyringError::Permissions`] when it is not the owner's alone, [`KeyringError::KeyFile`] when it cannot be used.
    pub fn open(path: &Path, entropy: Arc<dyn Entropy>) -> Result<Self, KeyringError> {
        let failed = |problem| KeyringError::KeyFile { path: path.to_owned(), problem };
        let text = read_own(path)?;
        let (id, key) = parse(&text).map_err(failed)?;
        Ok(Self { path: path.to_owned(), id, key, entropy })
    }

    /// The id of the file's key.
    #[must_use]
    pub fn key_id(&self) -> String {
        HEXLOWER.encode(&self.id.0)
    }

    fn header(&self) -> Header {
        Header { kind: Kind::WrappedRek, key_id: self.id, revision: 1 }
    }
}

#[async_trait]
impl RootProvider for KeyFile {
    fn kind(&self) -> ProviderKind {
        ProviderKind::File
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        Ok(ProviderStatus { key_id: self.key_id() })
    }

    async fn wrap(&self, store: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError> {
        if secret.len() > PROVIDER_SECRET_BYTES {
            return Err(ProviderError::TooLarge);
        }
        let sealed = seal(&self.key, self.header(), &place(store), secret, self.entropy.as_ref());
        let sealed = sealed.map_err(|error| ProviderError::Unavailable(error.to_string()))?;
        let ciphertext = sealed.as_bytes().to_vec();
        Ok(Wrapped { key_id: self.key_id(), annotations: Vec::new(), ciphertext })
    }

    async fn unwrap(&self, store: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        if wrapped.key_id != self.key_id() {
            return Err(ProviderError::UnknownKey);
        }
        let opened = open(&self.key, self.header(), &place(store), &wrapped.ciphertext);
        let opened = opened.map_err(|_| ProviderError::Rejected)?;
        Ok(Zeroizing::new(opened.as_bytes().to_vec()))
    }
}

fn place(store: StoreId) -> Place<'static> {
    Place { store, tenant: TenantRef::SYSTEM, session: &[], key: PLACE }
}

fn io(operation: &'static str, source: std::io::Error) -> KeyFileProblem {
    KeyFileProblem::Io { operation, source }
}

/// Reads a small file with a secret that must be the owner's alone.
///
/// # Errors
/// As for [`KeyFile::open`].
pub fn read_own(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let failed = |problem| KeyringError::KeyFile { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(|source| failed(io("read", source)))?;
    // Asked of the open file, so that it cannot be another one by the time it is read.
    let about = file.metadata().map_err(|source| failed(io("read", source)))?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyringError::Permissions { path: path.to_owned(), mode });
    }
    if about.is_file() { read(&mut file).map_err(failed) } else { Err(failed(KeyFileProblem::Damaged)) }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory for its owner alone, or checks that nobody else can replace what is in it.
fn prepare(directory: &Path) -> Result<(), KeyringError> {
    let failed = |source| KeyringError::KeyFile { path: directory.to_owned(), problem: io("made", source) };
    if directory.is_dir() {
        let mode = directory.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        let owned = mode & 0o022 == 0;
        let path = directory.to_owned();
        return if owned { Ok(()) } else { Err(KeyringError::Permissions { path, mode }) };
    }
    make(directory).map_err(failed)
}

/// Makes a directory and what is missing above it, each name durable before the next: a key that vanishes in a power cut
/// while the store stays would be a lost store.
fn make(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = directory(path);
    make(above)?;
    DirBuilder::new().mode(0o700).create(path)?;
    sync(above)
}

fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes beside the file, makes that durable, and gives it its name only if the name is free.
fn publish(path: &Path, directory: &Path, id: &KeyId, text: &[u8]) -> Result<(), KeyFileProblem> {
    let draft = directory.join(format!(".keyring-{}.tmp", HEXLOWER.encode(&id.0)));
    let written = write_draft(&draft, text).and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(KeyFileProblem::Exists),
        Err(error) => Err(io("written", error)),
        Ok(()) => removed.and_then(|()| sync(directory)).map_err(|error| io("written", error)),
    }
}

fn write_draft(draft: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text)?;
    file.sync_all()
}

/// The text of a keyring file, in one buffer that is wiped.
fn write(id: KeyId, key: &ProviderKey) -> Zeroizing<Vec<u8>> {
    let mut encoded = Zeroizing::new(vec![0; BASE64.encode_len(key.secret().expose().len())]);
    BASE64.encode_mut(key.secret().expose(), &mut encoded);
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    let id = HEXLOWER.encode(&id.0);
    let lines: [&[u8]; 8] = [HEADER, VERSION, b"\n", COMMENT, b"id ", id.as_bytes(), b"\nkey ", &encoded];
    lines.iter().for_each(|part| text.extend_from_slice(part));
    text.push(b'\n');
    let sum = HEXLOWER.encode(&checksum(&text));
    [b"sum ", sum.as_bytes(), b"\n"].iter().for_each(|part| text.extend_from_slice(part));
    text
}

/// Reads all of a file into one buffer that never moves, so that no copy is left behind.
fn read(file: &mut File) -> Result<Zeroizing<Vec<u8>>, KeyFileProblem> {
    let mut text = Zeroizing::new(vec![0; FILE_BYTES + 1]);
    let mut filled = 0;
    loop {
        let room = text.get_mut(filled..).unwrap_or_default();
        match file.read(room) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io("read", error)),
        }
    }
    if filled > FILE_BYTES {
        return Err(KeyFileProblem::Damaged);
    }
    text.truncate(filled);
    Ok(text)
}

fn parse(text: &[u8]) -> Result<(KeyId, ProviderKey), KeyFileProblem> {
    check_header(text)?;
    let (body, sum) = split_sum(text)?;
    if HEXLOWER.decode(sum).ok().as_deref() != Some(&checksum(body)) {
        return Err(KeyFileProblem::Damaged);
    }
    let mut lines = body.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.starts_with(b"#"));
    let id = lines.next().and_then(|line| line.strip_prefix(b"id "));
    let key = lines.next().and_then(|line| line.strip_prefix(b"key "));
    let end = (lines.next(), lines.next());
    let (Some(id), Some(key), (Some([]), None)) = (id, key, end) else {
        return Err(KeyFileProblem::Damaged);
    };
    Ok((parse_id(id)?, parse_key(key)?))
}

fn check_header(text: &[u8]) -> Result<(), KeyFileProblem> {
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
        let begun = HEADER.starts_with(text) || text.starts_with(HEADER);
        return Err(if begun { KeyFileProblem::Truncated } else { KeyFileProblem::Damaged });
    };
    match text.get(..end).and_then(|line| line.strip_prefix(HEADER)) {
        Some(VERSION) => Ok(()),
        Some(_) => Err(KeyFileProblem::UnknownVersion),
        None => Err(KeyFileProblem::Damaged),
    }
}

/// What stands above the last line, and the sum in it.
fn split_sum(text: &[u8]) -> Result<(&[u8], &[u8]), KeyFileProblem> {
    let whole = text.strip_suffix(b"\n").ok_or(KeyFileProblem::Truncated)?;
    let start = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (body, last) = whole.split_at_checked(start).ok_or(KeyFileProblem::Damaged)?;
    last.strip_prefix(b"sum ").map(|sum| (body, sum)).ok_or(KeyFileProblem::Truncated)
}

fn parse_id(text: &[u8]) -> Result<KeyId, KeyFileProblem> {
    let id = HEXLOWER.decode(text).ok().and_then(|id| id.try_into().ok());
    id.map(KeyId).ok_or(KeyFileProblem::Damaged)
}

fn parse_key(text: &[u8]) -> Result<ProviderKey, KeyFileProblem> {
    let room = BASE64.decode_len(text.len()).map_err(|_| KeyFileProblem::Damaged)?;
    let mut key = Zeroizing::new(vec![0; room]);
    let len = BASE64.decode_mut(text, &mut key).map_err(|_| KeyFileProblem::Damaged)?;
    let secret = Secret::from_slice(key.get(..len).unwrap_or_default());
    secret.map(ProviderKey::from_secret).map_err(|_| KeyFileProblem::Damaged)
}

fn checksum(body: &[u8]) -> [u8; SUM_BYTES] {
    // On the heap, which is wiped when it is freed: the hash's state holds what it was given last.
    let mut hash = Box::new(Context::new(&SHA256));
    hash.update(body);
    hash.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    fn entropy() -> Arc<dyn Entropy> {
        Arc::new(SystemEntropy::new())
    }

    fn problem(result: Result<KeyFile, KeyringError>) -> KeyFileProblem {
        match result {
            Err(KeyringError::KeyFile { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_was_made_opens_and_holds_the_same_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys/dev/root.key");
        let made = KeyFile::create(&path, entropy()).unwrap();
        let opened = KeyFile::open(&path, entropy()).unwrap();
        assert!(made.key.secret().expose() == opened.key.secret().expose());
        assert_eq!(made.key_id(), opened.key_id());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(problem(KeyFile::create(&path, entropy())), KeyFileProblem::Exists));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_file_that_others_can_get_at_is_refused_by_path_and_mode() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        KeyFile::create(&path, entropy()).unwrap();
        for bad in [0o640, 0o604, 0o620, 0o601, 0o666, 0o660] {
            set_mode(&path, bad);
            let refused = KeyFile::open(&path, entropy()).unwrap_err();
            let text = refused.to_string();
            assert!(matches!(refused, KeyringError::Permissions { mode, .. } if mode == bad), "{text}");
            assert!(text.contains("root.key") && text.contains(&format!("{bad:04o}")), "{text}");
        }
        for good in [0o400, 0o600] {
            set_mode(&path, good);
            assert!(KeyFile::open(&path, entropy()).is_ok());
        }
    }

    #[test]
    fn no_file_is_made_where_others_could_replace_it() {
        let home = tempfile::tempdir().unwrap();
        set_mode(home.path(), 0o777);
        let refused = KeyFile::create(&home.path().join("root.key"), entropy());
        assert!(matches!(refused, Err(KeyringError::Permissions { mode: 0o777, .. })));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        KeyFile::create(&path, entropy()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(problem(KeyFile::open(&path, entropy())), KeyFileProblem::Truncated), "{len}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(parse(&bytes).is_err(), "{at}.{bit}");
            }
        }
    }

    #[test]
    fn another_version_and_another_file_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        std::fs::write(&path, b"strongroom-keyring 2\nwhatever\n").unwrap();
        set_mode(&path, 0o600);
        assert!(matches!(problem(KeyFile::open(&path, entropy())), KeyFileProblem::UnknownVersion));
        std::fs::write(&path, b"-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert!(matches!(problem(KeyFile::open(&path, entropy())), KeyFileProblem::Damaged));
        std::fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert!(matches!(problem(KeyFile::open(&path, entropy())), KeyFileProblem::Damaged));
        assert!(matches!(
            problem(KeyFile::open(&home.path().join("none"), entropy())),
            KeyFileProblem::Io { operation: "read", .. }
        ));
    }

    #[tokio::test]
    async fn what_a_file_wrapped_opens_for_its_store_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = KeyFile::create(&home.path().join("a.key"), entropy()).unwrap();
        let other = KeyFile::create(&home.path().join("b.key"), entropy()).unwrap();
        let (store, elsewhere) = (StoreId([1; 16]), StoreId([2; 16]));
        let wrapped = file.wrap(store, b"secret").await.unwrap();
        assert_eq!(file.unwrap(store, &wrapped).await.unwrap().as_slice(), b"secret");
        assert!(matches!(file.unwrap(elsewhere, &wrapped).await, Err(ProviderError::Rejected)));
        assert!(matches!(other.unwrap(store, &wrapped).await, Err(ProviderError::UnknownKey)));
        let renamed = Wrapped { key_id: other.key_id(), ..wrapped };
        assert!(matches!(other.unwrap(store, &renamed).await, Err(ProviderError::Rejected)));
        let large = file.wrap(store, &[0; PROVIDER_SECRET_BYTES + 1]).await;
        assert!(matches!(large, Err(ProviderError::TooLarge)));
    }

    #[test]
    fn debug_output_names_the_path_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("root.key");
        let file = KeyFile::create(&path, entropy()).unwrap();
        assert_eq!(format!("{file:?}"), format!("KeyFile({})", path.display()));
    }
}
