//! Looks at the files that a configuration names, without reading what is secret in them.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use super::{Mistake, Problem};

/// Bits that the mode of a private key must not have: writing by the group, anything by others. The group may read,
/// because that is how Kubernetes hands secrets to a process that is not root.
pub(super) const PRIVATE_KEY: u32 = 0o027;

/// Bits that the mode of a keyring file must not have; its reader refuses the same.
pub(super) const KEYRING: u32 = 0o077;

/// Bits that the mode of a file of the server's own must not have. The group may write: that is how Kubernetes hands a volume
/// to a process that is not root.
const OWN: u32 = 0o007;

/// The text of a file of at most `max` bytes.
pub(super) fn read_text(path: &Path, max: u64) -> Result<String, Mistake> {
    let wrong = |problem| Mistake { line: None, field: String::new(), problem };
    let unreadable =
        |error: std::io::Error| wrong(Problem::Unreadable { path: path.to_owned(), kind: error.kind() });
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(max + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > max {
        return Err(wrong(Problem::TooLarge { path: path.to_owned(), max }));
    }
    Ok(text)
}

/// A file that everybody may read.
pub(super) fn check_public(field: &str, path: &Path) -> Option<Mistake> {
    regular_file(path).err().map(|problem| mistake(field, problem))
}

/// A file whose mode has none of the bits of `forbidden`.
pub(super) fn check_secret(field: &str, path: &Path, forbidden: u32) -> Option<Mistake> {
    let problem = match regular_file(path) {
        Err(problem) => problem,
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & forbidden == 0 {
                return None;
            }
            Problem::OpenToOthers { path: path.to_owned(), mode }
        }
    };
    Some(mistake(field, problem))
}

/// A directory that exists or can still be made.
pub(super) fn check_directory(field: &str, path: &Path) -> Option<Mistake> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            Some(mistake(field, Problem::NotADirectory { path: path.to_owned() }))
        }
        Ok(_) | Err(_) => None,
    }
}

/// A file that this process writes, and that nobody else may: it is good that it is not there yet, when its directory is.
pub(super) fn check_own(field: &str, path: &Path) -> Option<Mistake> {
    if path.symlink_metadata().is_ok() {
        return check_secret(field, path, OWN);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(mistake(field, Problem::NotADirectory { path: parent.to_owned() })),
        Err(error) => {
            Some(mistake(field, Problem::Unreadable { path: parent.to_owned(), kind: error.kind() }))
        }
    }
}

/// A Unix socket; nothing is wrong when nobody has made it yet.
pub(super) fn check_socket(field: &str, path: &Path) -> Option<Mistake> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Some(mistake(field, Problem::NotASocket { path: path.to_owned() }))
        }
        Ok(_) | Err(_) => None,
    }
}

fn regular_file(path: &Path) -> Result<Metadata, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::Unreadable { path: path.to_owned(), kind: error.kind() };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Problem::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(unreadable)?;
    Ok(metadata)
}

fn mistake(field: &str, problem: Problem) -> Mistake {
    Mistake { line: None, field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::super::{Config, ConfigErrors, Provider};
    use super::*;

    const TEXT: &str =
        "[tls]\ncertificate='c'\nkey='k'\n[store]\npath='d'\n[root]\nkeyring='r'\nrecovery=['p']\n";

    fn written(files: &[(&str, u32)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("strongroom.toml"), TEXT).unwrap();
        for (name, mode) in files {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        dir
    }

    fn load(dir: &Path) -> Result<Config, ConfigErrors> {
        Config::load(&dir.join("strongroom.toml"))
    }

    #[test]
    fn files_whose_secrets_are_closed_are_good() {
        let dir = written(&[("c", 0o644), ("k", 0o440), ("r", 0o600), ("p", 0o644)]);
        let config = load(dir.path()).unwrap();
        let keyring = dir.path().join("r");
        let provider = config.root.provider.clone();
        assert_eq!((provider, config.check_files()), (Provider::File { keyring }, vec![]));
    }

    #[test]
    fn missing_and_open_files_are_all_named() {
        let dir = written(&[("k", 0o644), ("r", 0o440), ("d", 0o600)]);
        let mistakes = load(dir.path()).unwrap().check_files();
        let [certificate, key, store, keyring, recovery] = mistakes.as_slice() else {
            panic!("{mistakes:?}")
        };
        let missing = |name| Problem::Unreadable { path: dir.path().join(name), kind: ErrorKind::NotFound };
        assert_eq!((certificate.problem.clone(), recovery.problem.clone()), (missing("c"), missing("p")));
        assert_eq!(key.problem, Problem::OpenToOthers { path: dir.path().join("k"), mode: 0o644 });
        assert_eq!(keyring.problem, Problem::OpenToOthers { path: dir.path().join("r"), mode: 0o440 });
        assert_eq!(store.problem, Problem::NotADirectory { path: dir.path().join("d") });
    }

    #[test]
    fn a_configuration_that_is_not_there_or_far_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let errors = load(dir.path()).unwrap_err();
        assert!(matches!(
            errors.mistakes()[0].problem,
            Problem::Unreadable { kind: ErrorKind::NotFound, .. }
        ));
        fs::write(dir.path().join("strongroom.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(matches!(load(dir.path()).unwrap_err().mistakes()[0].problem, Problem::TooLarge { .. }));
    }
}
