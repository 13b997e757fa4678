//! `key wrapping-key`, `key import`, `key export`: key material that comes from its owner, or goes to one.
//!
//! Key material is read from a file that nobody else may read, or from standard input; it is never an argument, never in the
//! environment, and no error repeats any of it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::Serialize;
use zeroize::Zeroizing;

use super::record::KeyRecord;
use super::{Keys, VersionArgs};
use crate::cli::failure::Failure;
use crate::cli::invocation::Invocation;
use crate::cli::output::{self, Record, Time};
use crate::cli::profile::exposed;
use crate::client::{
    ExportedKek, Kek, Secret, Uuid, WRAPPED_BYTES, WrappedKey, WrappingKey, WrappingPublicKey,
};

/// No file that is taken here is longer: 80 bytes in hexadecimal digits, with room for line ends.
const FILE_BYTES: usize = 256;
/// Length of key material and of public keys.
const KEY_BYTES: usize = 32;
/// How a key is wrapped, as the file of an export says it.
const SUITE: &str = "HPKE base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM";

/// Arguments of `key import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File that holds the key material: 32 bytes, or their base64 or hexadecimal digits; '-' is standard input
    ///
    /// It must not be readable by others.
    #[arg(long, value_name = "FILE", required_unless_present = "wrapped")]
    file: Option<PathBuf>,
    /// File that holds material that was wrapped elsewhere: 80 bytes, or their base64 or hexadecimal digits
    #[arg(long, value_name = "FILE", conflicts_with = "file", requires = "wrapping_key")]
    wrapped: Option<PathBuf>,
    /// The uid of the wrapping key that it was wrapped for
    #[arg(long, value_name = "UID", requires = "wrapped", conflicts_with = "file")]
    wrapping_key: Option<Uuid>,
    /// Only make the version, and leave it pending until 'key promote'
    #[arg(long)]
    pending: bool,
}

/// Arguments of `key export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    which: VersionArgs,
    /// File that holds the recipient's X25519 public key: 32 bytes, or their base64 or hexadecimal digits
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// New file for the wrapped key, as JSON: suite, info, wrapped (base64)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Keys {
    pub(super) async fn wrapping_key(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let key = self.admin.wrapping_key(&self.tenant).await;
        let key = key.map_err(Failure::call("make a wrapping key"))?;
        invocation.console.record(&WrappingKeyRecord::from(&*key))
    }

    pub(super) async fn import(&self, args: ImportArgs, invocation: &mut Invocation) -> Result<Kek, Failure> {
        let made = match (args.wrapped, args.wrapping_key, args.file) {
            (Some(path), Some(uid), _) => {
                let wrapped = WrappedKey(*decode::<WRAPPED_BYTES>(&path, &read(&path, false)?)?);
                self.admin.import_wrapped(&self.tenant, &uid.to_string(), &wrapped, args.pending).await
            }
            (_, _, Some(path)) => {
                let material = key_material(&path)?;
                self.admin.import_kek(&self.tenant, &material, args.pending).await
            }
            (_, _, None) => return Err(Failure::Combination("--file or --wrapped is needed")),
        };
        let key = made.map_err(Failure::call("import the key material"))?.into_inner();
        invocation.console.say(
            "The version is only as secret as every copy of its material: keep none, or keep it as safe as this store.",
        )?;
        Ok(key)
    }

    pub(super) async fn export(&self, args: ExportArgs, invocation: &mut Invocation) -> Result<(), Failure> {
        let recipient = WrappingPublicKey(*decode::<KEY_BYTES>(&args.to, &read(&args.to, false)?)?);
        let version = args.which.version;
        let consequence = format!(
            "This gives version {version} of the key of the tenant {} to whoever holds the private half of the public key in \
             {}. Nothing takes that back: the version is marked as exported.",
            self.tenant,
            args.to.display()
        );
        invocation.confirm(&consequence, &format!("{}/{version}", self.tenant))?;
        // The file is made first: a key that went out and cannot be written anywhere would be marked for nothing.
        let file = output::private_file(&args.out, true).map_err(Failure::file(&args.out, "created"))?;
        let exported = match self.admin.export_kek(&self.tenant, version, &recipient).await {
            Ok(exported) => exported.into_inner(),
            Err(error) => {
                fs::remove_file(&args.out).map_err(Failure::file(&args.out, "removed"))?;
                return Err(Failure::call("export the version")(error));
            }
        };
        write_export(file, &args.out, &exported)?;
        invocation.console.record(&KeyRecord::from(&exported.kek))
    }
}

/// What the file of an export says.
#[derive(Serialize)]
struct ExportFile<'a> {
    suite: &'static str,
    info: &'a str,
    wrapped: String,
}

fn write_export(mut file: fs::File, path: &Path, exported: &ExportedKek) -> Result<(), Failure> {
    let said = ExportFile { suite: SUITE, info: &exported.info, wrapped: BASE64.encode(&exported.wrapped.0) };
    let text = serde_json::to_string_pretty(&said).map_err(io::Error::from);
    let written = text.and_then(|text| writeln!(file, "{text}"));
    written.and_then(|()| file.sync_all()).map_err(Failure::file(path, "written"))
}

/// Reads key material.
fn key_material(path: &Path) -> Result<Secret, Failure> {
    let bytes = decode::<KEY_BYTES>(path, &read(path, true)?)?;
    Secret::from_slice(&bytes[..]).map_err(|_| malformed(path, KEY_BYTES))
}

/// Reads a short file, or standard input; one that holds a `secret` must be its owner's alone.
fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path == Path::new("-") {
        return read_all(io::stdin().lock(), path);
    }
    let file = fs::File::open(path).map_err(Failure::file(path, "read"))?;
    // Of the file that is read, whatever the name leads to a moment later.
    let metadata = file.metadata().map_err(Failure::file(path, "read"))?;
    match exposed(&metadata) {
        Some(mode) if secret => Err(Failure::MaterialExposed { path: path.to_owned(), mode }),
        Some(_) | None => read_all(file, path),
    }
}

fn read_all(mut from: impl io::Read, path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // One block of a fixed size: a buffer that grew would leave what it held behind.
    let mut block = Zeroizing::new(vec![0; FILE_BYTES + 1]);
    let mut held = 0;
    while let Some(rest) = block.get_mut(held..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => held += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::file(path, "read")(error)),
        }
    }
    if held > FILE_BYTES {
        return Err(Failure::TooLarge { what: "a key file", most: FILE_BYTES });
    }
    block.truncate(held);
    Ok(block)
}

/// Bytes as they are, or written in base64 or hexadecimal digits.
fn decode<const N: usize>(path: &Path, bytes: &[u8]) -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut decoded = Zeroizing::new([0; N]);
    if bytes.len() == N {
        decoded.copy_from_slice(bytes);
        return Ok(decoded);
    }
    let text = bytes.trim_ascii();
    let encoding = if text.len() == 2 * N { HEXLOWER_PERMISSIVE } else { BASE64 };
    let len = encoding.decode_len(text.len()).map_err(|_| malformed(path, N))?;
    let mut out = Zeroizing::new(vec![0; len]);
    match encoding.decode_mut(text, &mut out) {
        Ok(len) if len == N => {
            decoded.copy_from_slice(out.get(..N).unwrap_or_default());
            Ok(decoded)
        }
        Ok(_) | Err(_) => Err(malformed(path, N)),
    }
}

fn malformed(path: &Path, bytes: usize) -> Failure {
    Failure::KeyFile { path: path.to_owned(), bytes }
}

/// A wrapping key as it is printed.
#[derive(Serialize)]
struct WrappingKeyRecord {
    uid: String,
    public_key: String,
    info: String,
    expires: Time,
}

impl From<&WrappingKey> for WrappingKeyRecord {
    fn from(key: &WrappingKey) -> Self {
        Self {
            uid: key.uid.clone(),
            public_key: BASE64.encode(&key.public_key.0),
            info: key.info.clone(),
            expires: Time(key.expire_time),
        }
    }
}

impl Record for WrappingKeyRecord {
    const COLUMNS: &'static [&'static str] = &["UID", "PUBLIC KEY", "EXPIRES", "INFO"];

    fn cells(&self) -> Vec<String> {
        vec![self.uid.clone(), self.public_key.clone(), self.expires.to_string(), self.info.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 32] = *b"0123456789abcdefghijklmnopqrstu\n";

    fn decoded(bytes: &[u8]) -> Result<[u8; 32], Failure> {
        decode::<32>(Path::new("file"), bytes).map(|decoded| *decoded)
    }

    #[test]
    fn bytes_base64_and_hexadecimal_digits_are_the_same_key() {
        assert_eq!(decoded(&BYTES).unwrap(), BYTES, "raw bytes are taken as they are, a line end too");
        let hex = HEXLOWER_PERMISSIVE.encode(&BYTES);
        for text in [hex.clone(), hex.to_uppercase(), BASE64.encode(&BYTES)] {
            assert_eq!(decoded(text.as_bytes()).unwrap(), BYTES);
            assert_eq!(decoded(format!(" {text}\r\n").as_bytes()).unwrap(), BYTES);
        }
    }

    #[test]
    fn anything_else_is_refused_without_being_repeated() {
        let base64 = BASE64.encode(&BYTES);
        let hex = HEXLOWER_PERMISSIVE.encode(&BYTES);
        for wrong in ["", "word", &hex[2..], &base64[4..], &format!("{hex}00"), &hex.replace('3', "x")] {
            let refused = decoded(wrong.as_bytes()).unwrap_err();
            assert!(matches!(refused, Failure::KeyFile { bytes: 32, .. }), "{wrong}");
            assert!(wrong.is_empty() || !format!("{refused} {refused:?}").contains(wrong));
        }
        assert!(matches!(decoded(&BYTES[1..]), Err(Failure::KeyFile { .. })));
    }

    #[test]
    fn a_long_file_is_refused() {
        let long = vec![b'a'; FILE_BYTES + 1];
        let refused = read_all(&long[..], Path::new("file"));
        assert!(matches!(refused, Err(Failure::TooLarge { most: FILE_BYTES, .. })));
        assert_eq!(read_all(&long[1..], Path::new("file")).unwrap().len(), FILE_BYTES);
    }
}
