//! The public keys of an issuer: a JWK set (RFC 7517) from a file that may be replaced at any time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::SignatureAlgorithm;

/// Largest file with a set.
const FILE_BYTES: u64 = 256 << 10;
/// Most keys in a set.
const KEYS: usize = 64;
/// Longest name of a key.
const KID_BYTES: usize = 256;
/// Sizes of RSA moduli that ring verifies with.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a set of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// Its file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its file is too large to be one.
    #[error("{} is larger than {FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no JWK set.
    #[error("it is not a JWK set")]
    Malformed,
    /// It holds more keys than any issuer needs.
    #[error("it holds more than {KEYS} keys")]
    TooMany,
    /// It holds secrets, which have no business there.
    #[error("it holds a private or a shared key; only public keys belong there")]
    Secret,
    /// Two keys have the same name.
    #[error("two of its keys have the same kid")]
    Twice,
    /// A key has parts that are missing, or of the wrong size.
    #[error("one of its keys is not well formed")]
    Key,
    /// It holds no key that we can use.
    #[error("it holds no key with a kid for RS256, PS256, ES256 or EdDSA")]
    Empty,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

struct Key {
    public: PublicKey,
    /// The one algorithm that it is for, where the issuer says so.
    only: Option<String>,
}

/// The keys of an issuer, by name.
pub struct KeySet(BTreeMap<String, Key>);

impl KeySet {
    /// Reads a JWK set. Keys of kinds that we do not use, and those without a name, are left out.
    ///
    /// # Errors
    /// [`KeySetError`] when any part of it is wrong: a set is taken as a whole or not at all.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        if keys.len() > KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut set = BTreeMap::new();
        for jwk in keys {
            if jwk.d.is_some() || jwk.k.is_some() {
                return Err(KeySetError::Secret);
            }
            let Some(kid) = jwk.kid.clone().filter(|kid| !kid.is_empty() && kid.len() <= KID_BYTES) else {
                continue;
            };
            if let Some(public) = jwk.public()?
                && set.insert(kid, Key { public, only: jwk.alg }).is_some()
            {
                return Err(KeySetError::Twice);
            }
        }
        if set.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(set)) }
    }

    /// Verifies a signature with the key of that name, which must be one for `algorithm`.
    #[must_use]
    pub fn verify(
        &self,
        kid: &str,
        algorithm: SignatureAlgorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Option<()> {
        use SignatureAlgorithm::{EdDsa, Es256, Ps256, Rs256};
        let key = self.0.get(kid)?;
        if key.only.as_ref().is_some_and(|only| only != algorithm.name()) {
            return None;
        }
        let verified = match (&key.public, algorithm) {
            (PublicKey::Rsa { n, e }, Rs256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
            (PublicKey::Rsa { n, e }, Ps256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, signed, signature)
            }
            (PublicKey::P256(point), Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            (PublicKey::Ed25519(point), EdDsa) => {
                UnparsedPublicKey::new(&ED25519, point).verify(signed, signature)
            }
            (PublicKey::Rsa { .. } | PublicKey::P256(_) | PublicKey::Ed25519(_), _) => return None,
        };
        verified.ok()
    }
}

impl Jwk {
    /// The key, if it is of a kind that we use and for signatures.
    fn public(&self) -> Result<Option<PublicKey>, KeySetError> {
        if self.r#use.as_ref().is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        Ok(match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (decoded(self.n.as_ref())?, decoded(self.e.as_ref())?);
                if !MODULUS_BYTES.contains(&n.len()) {
                    return Err(KeySetError::Key);
                }
                Some(PublicKey::Rsa { n, e })
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (coordinate(self.x.as_ref())?, coordinate(self.y.as_ref())?);
                Some(PublicKey::P256([&[4][..], &x, &y].concat()))
            }
            ("OKP", Some("Ed25519")) => Some(PublicKey::Ed25519(coordinate(self.x.as_ref())?)),
            _ => None,
        })
    }
}

fn decoded(part: Option<&String>) -> Result<Vec<u8>, KeySetError> {
    let part = part.ok_or(KeySetError::Key)?;
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| KeySetError::Key)
}

fn coordinate(part: Option<&String>) -> Result<Vec<u8>, KeySetError> {
    decoded(part).and_then(|bytes| if bytes.len() == 32 { Ok(bytes) } else { Err(KeySetError::Key) })
}

/// A set of keys that follows its file. What was loaded last stays in use while the file is damaged or missing.
///
/// Only time and [`reload`](Self::reload) make it look at the file: no token does, whatever key it names.
pub struct KeySource {
    path: PathBuf,
    current: RwLock<(Vec<u8>, Arc<KeySet>)>,
    fault: Mutex<Option<String>>,
    failures: AtomicU64,
}

impl KeySource {
    /// Loads a file. Blocks for as long as reading it takes.
    ///
    /// # Errors
    /// [`KeySetError`] when it cannot be used.
    pub fn open(path: PathBuf) -> Result<Arc<Self>, KeySetError> {
        let json = read(&path)?;
        let set = Arc::new(KeySet::parse(&json)?);
        let (fault, failures) = (Mutex::new(None), AtomicU64::new(0));
        Ok(Arc::new(Self { path, current: RwLock::new((json, set)), fault, failures }))
    }

    /// The keys that count now.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// How often a look at the file found something that cannot be used.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Looks at the file and takes over what it holds; says in the log what is new, once. Blocks for as long as reading
    /// takes.
    pub fn reload(&self) {
        let fault = self.replace().err().map(|error| error.to_string());
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = &fault {
            self.failures.fetch_add(1, Ordering::Relaxed);
            if last.as_ref() != Some(fault) {
                tracing::error!(%fault, "the keys of an issuer cannot be used; the last good ones stay in use");
            }
        }
        *last = fault;
    }

    fn replace(&self) -> Result<(), KeySetError> {
        let json = read(&self.path)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == json {
            return Ok(());
        }
        let set = Arc::new(KeySet::parse(&json)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (json, set);
        tracing::info!("the keys of an issuer were replaced");
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeySetError> {
    let failed = |error| KeySetError::Read { path: path.to_owned(), error };
    let mut json = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut json)).map_err(failed)?;
    if json.len() as u64 > FILE_BYTES {
        return Err(KeySetError::TooLarge { path: path.to_owned() });
    }
    Ok(json)
}
