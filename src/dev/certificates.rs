//! A certificate authority that can vouch for this machine's loopback names alone, and the server's certificate.
//!
//! Whether the certificate that is there will still do is asked of the verifier that clients use, not of a parser of our
//! own. Keys are P-256, which every client's TLS library takes; they come from ring's own generator, because rcgen takes
//! no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::{DevError, DevPaths, files};
use crate::model::{Duration, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3600);
const VALID: Duration = Duration::from_secs(90 * 24 * 3600);
/// A certificate with less time left than this is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 24 * 3600);
const AUTHORITY_VALID: Duration = Duration::from_secs(3650 * 24 * 3600);
/// 9000-01-01: X.509 ends with the year 9999.
const LAST_SECOND: u64 = 221_845_392_000;

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes what is missing or has too little time left; says whether the server's certificate is new.
pub(super) fn ensure(paths: &DevPaths, now: Timestamp) -> Result<bool, DevError> {
    let (authority, anchor) = ensure_authority(paths, now)?;
    if will_do(paths, &anchor, now.after(RENEW_BEFORE))? {
        return Ok(false);
    }
    let key = KeyPair::generate()?;
    let params = server_params(now)?;
    let issuer = Issuer::new(authority_params(now), authority);
    let certificate = params.signed_by(&key, &issuer)?;
    write_key(&paths.key, &key)?;
    files::write(&paths.certificate, certificate.pem().as_bytes())?;
    Ok(true)
}

/// The authority's key and certificate. A key without its certificate gets a new one; a certificate without its key is void.
fn ensure_authority(
    paths: &DevPaths,
    now: Timestamp,
) -> Result<(KeyPair, CertificateDer<'static>), DevError> {
    let key = match files::read_private(&paths.ca_key)? {
        Some(pem) => parse_key(&paths.ca_key, &pem)?,
        None => {
            let key = KeyPair::generate()?;
            write_key(&paths.ca_key, &key)?;
            key
        }
    };
    let found = files::read_public(&paths.ca)?;
    if let Some(certificate) = found.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok())
        && certifies(&certificate, &key)
    {
        return Ok((key, certificate));
    }
    let certificate = authority_params(now).self_signed(&key)?;
    files::write(&paths.ca, certificate.pem().as_bytes())?;
    let certificate = certificate.der().clone();
    Ok((key, certificate))
}

/// Whether the certificate is about this key: a public key is found in no other.
fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let public = key.public_key_raw();
    certificate.windows(public.len()).any(|part| part == public)
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let host = |address: IpAddr, bits| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits));
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Strongroom dev authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Whoever steals the key, or trusts the authority in a browser, can do no harm beyond this machine.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            host(Ipv4Addr::LOCALHOST.into(), 32),
            host(Ipv6Addr::LOCALHOST.into(), 128),
        ],
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params, now, AUTHORITY_VALID);
    params
}

fn server_params(now: Timestamp) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "Strongroom dev server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, VALID);
    Ok(params)
}

/// From a day ago, for clients whose clock is behind.
fn set_validity(params: &mut CertificateParams, now: Timestamp, span: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.as_secs().min(LAST_SECOND));
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + span;
}

/// Whether a client that trusts `anchor` will take what is there at the time `at`, for every name.
fn will_do(paths: &DevPaths, anchor: &CertificateDer<'_>, at: Timestamp) -> Result<bool, DevError> {
    let (Some(certificate), Some(key)) =
        (files::read_public(&paths.certificate)?, files::read_private(&paths.key)?)
    else {
        return Ok(false);
    };
    Ok(verify(anchor, &certificate, &key, at).is_some())
}

fn verify(anchor: &CertificateDer<'_>, certificate: &[u8], key: &[u8], at: Timestamp) -> Option<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(certificate).ok()?;
    let key = PrivateKeyDer::from_pem_slice(key).ok()?;
    // Fails when the key is not the certificate's.
    CertifiedKey::from_der(vec![certificate.clone()], key, &provider).ok()?;

    let mut roots = RootCertStore::empty();
    roots.add(anchor.clone().into_owned()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()));
    NAMES.into_iter().try_for_each(|name| {
        let name = ServerName::try_from(name).ok()?;
        verifier.verify_server_cert(&certificate, &[], &name, &[], at).ok().map(drop)
    })
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, DevError> {
    let malformed = || DevError::Malformed { path: path.to_owned(), expected: "a private key" };
    let pem = std::str::from_utf8(pem).map_err(|_| malformed())?;
    KeyPair::from_pem(pem).map_err(|_| malformed())
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), DevError> {
    files::write(path, Zeroizing::new(key.serialize_pem()).as_bytes())
}

/// A certificate of the authority for any name, for the test of what it may vouch for.
#[cfg(test)]
pub(super) fn issue_for(authority: &KeyPair, name: &str, now: Timestamp) -> CertificateDer<'static> {
    let mut params = server_params(now).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
    let issuer = Issuer::new(authority_params(now), authority);
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
}

/// Whether a client that trusts the authority takes the certificate for `name`.
#[cfg(test)]
pub(super) fn is_trusted(
    paths: &DevPaths,
    certificate: &CertificateDer<'_>,
    name: &str,
    at: Timestamp,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&paths.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok()
}
