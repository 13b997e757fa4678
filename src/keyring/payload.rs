//! What is inside the sealed descriptions of tenant and system rows.
//!
//! A version byte, then the fields in their order as [postcard](https://postcard.jamesmunns.com/wire-format) writes them:
//! integers as varints, strings and lists behind their length. Nothing may follow.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::KeyringError;
use super::tenant::Description;
use super::version::{KekVersionState, Rotation};
use crate::crypto::SealError;
use crate::model::{
    Duration, KekOrigin, KekState, KekVersion, TenantName, TenantRef, TenantState, Timestamp,
};

/// The version of the system row's payload.
const SYSTEM: u8 = 1;
/// The versions of a tenant's payload: the first has no destruction times of keys, the second none of the tenant, the third says
/// nothing about custody. What is written is the fourth.
const TENANT_V1: u8 = 1;
const TENANT_V2: u8 = 2;
const TENANT_V3: u8 = 3;
const TENANT_V4: u8 = 4;

/// `V` is a version of the key as the payload's version writes it.
#[derive(Serialize, Deserialize)]
struct StoredTenant<'a, V> {
    name: &'a str,
    incarnation: u32,
    state: u8,
    created_ms: u64,
    changed_ms: u64,
    kek_id: [u8; 12],
    versions: Vec<V>,
    audit_epoch: u32,
    pseudonym_version: u32,
}

/// What the second version has behind the rest; zeros unless versions are made by themselves.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct RotationV2 {
    every_ms: u64,
    next_ms: u64,
}

/// What the fourth version has behind the rest: what may leave the store, and which keys somebody else has, or may have.
#[derive(Default, Serialize, Deserialize)]
struct CustodyV4 {
    exportable: bool,
    /// Versions that were imported.
    imported: Vec<u32>,
    /// Versions that were exported, and when that first happened, in milliseconds.
    exported: Vec<(u32, u64)>,
}

#[derive(Deserialize)]
struct VersionV1 {
    version: u32,
    state: u8,
    created_ms: u64,
    changed_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct VersionV2 {
    version: u32,
    state: u8,
    created_ms: u64,
    changed_ms: u64,
    /// 0 unless a destruction is scheduled.
    destroy_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct SystemV1 {
    created_ms: u64,
    audit_epoch: u32,
    pseudonym_version: u32,
}

/// What the system row says beside its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SystemDescription {
    pub(super) created: Timestamp,
    pub(super) audit_epoch: u32,
    pub(super) pseudonym_version: u32,
}

pub(super) fn encode_tenant(description: &Description) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let stored = StoredTenant {
        name: description.name.as_str(),
        incarnation: description.tenant.incarnation,
        state: tenant_state_number(description.state),
        created_ms: description.created.as_millis(),
        changed_ms: description.changed.as_millis(),
        kek_id: description.kek_id,
        versions: description.versions.iter().map(VersionV2::from).collect(),
        audit_epoch: description.audit_epoch,
        pseudonym_version: description.pseudonym_version,
    };
    let destroy_ms = description.destroy_at.map_or(0, Timestamp::as_millis);
    let custody = CustodyV4::from(description);
    encode(TENANT_V4, &(stored, RotationV2::from(description.rotation), destroy_ms, custody))
}

/// Opens a tenant's description; anything that no version of this program would write is refused.
pub(super) fn decode_tenant(tenant: TenantRef, payload: &[u8]) -> Result<Description, KeyringError> {
    match payload.first() {
        Some(&TENANT_V1) => {
            check_tenant::<VersionV1>(tenant, decode(TENANT_V1, payload)?, RotationV2::default(), 0)
        }
        Some(&TENANT_V2) => {
            let (stored, rotation) = decode(TENANT_V2, payload)?;
            check_tenant::<VersionV2>(tenant, stored, rotation, 0)
        }
        Some(&TENANT_V3) => {
            let (stored, rotation, destroy_ms) = decode(TENANT_V3, payload)?;
            check_tenant::<VersionV2>(tenant, stored, rotation, destroy_ms)
        }
        _ => {
            let (stored, rotation, destroy_ms, custody): (_, _, _, CustodyV4) = decode(TENANT_V4, payload)?;
            custody.apply(check_tenant::<VersionV2>(tenant, stored, rotation, destroy_ms)?)
        }
    }
}

fn check_tenant<V: Into<VersionV2>>(
    tenant: TenantRef,
    stored: StoredTenant<'_, V>,
    rotation: RotationV2,
    destroy_ms: u64,
) -> Result<Description, KeyringError> {
    let versions: Option<Vec<_>> = stored.versions.into_iter().map(|of| of.into().check()).collect();
    let versions = versions.ok_or(KeyringError::Integrity)?;
    let state = tenant_state(stored.state).ok_or(KeyringError::Integrity)?;
    let description = Description {
        tenant,
        name: TenantName::new(stored.name).map_err(|_| KeyringError::Integrity)?,
        state,
        created: Timestamp::from_millis(stored.created_ms),
        changed: Timestamp::from_millis(stored.changed_ms),
        kek_id: stored.kek_id,
        primary: the_primary(state, &versions)?,
        versions,
        audit_epoch: stored.audit_epoch,
        pseudonym_version: stored.pseudonym_version,
        rotation: rotation.check(),
        destroy_at: (destroy_ms != 0).then(|| Timestamp::from_millis(destroy_ms)),
        exportable: false,
    };
    let ends = matches!(state, TenantState::DestroyScheduled | TenantState::Destroyed);
    let genuine = stored.incarnation == tenant.incarnation && ends == description.destroy_at.is_some();
    if genuine { Ok(description) } else { Err(KeyringError::Integrity) }
}

pub(super) fn encode_system(description: SystemDescription) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let stored = SystemV1 {
        created_ms: description.created.as_millis(),
        audit_epoch: description.audit_epoch,
        pseudonym_version: description.pseudonym_version,
    };
    encode(SYSTEM, &stored)
}

pub(super) fn decode_system(payload: &[u8]) -> Result<SystemDescription, KeyringError> {
    let stored: SystemV1 = decode(SYSTEM, payload)?;
    Ok(SystemDescription {
        created: Timestamp::from_millis(stored.created_ms),
        audit_epoch: stored.audit_epoch,
        pseudonym_version: stored.pseudonym_version,
    })
}

pub(super) fn encode(version: u8, stored: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // Sized first, so that nothing is left behind where a growing buffer was.
    let too_large = |_| KeyringError::Seal(SealError::TooLarge);
    let len = postcard::experimental::serialized_size(stored).map_err(too_large)?;
    let mut payload = Zeroizing::new(vec![version; len + 1]);
    let fields = payload.get_mut(1..).unwrap_or_default();
    postcard::to_slice(stored, fields).map_err(too_large)?;
    Ok(payload)
}

pub(super) fn decode<'a, T: Deserialize<'a>>(version: u8, payload: &'a [u8]) -> Result<T, KeyringError> {
    let fields = payload.strip_prefix(&[version]).ok_or(KeyringError::Integrity)?;
    match postcard::take_from_bytes(fields) {
        Ok((stored, [])) => Ok(stored),
        Ok(_) | Err(_) => Err(KeyringError::Integrity),
    }
}

impl From<Option<Rotation>> for RotationV2 {
    fn from(rotation: Option<Rotation>) -> Self {
        rotation.map_or_else(Self::default, |of| Self {
            every_ms: u64::try_from(of.every.as_millis()).unwrap_or(u64::MAX),
            next_ms: of.next.as_millis(),
        })
    }
}

impl RotationV2 {
    fn check(self) -> Option<Rotation> {
        let (every, next) = (Duration::from_millis(self.every_ms), Timestamp::from_millis(self.next_ms));
        (self.every_ms != 0).then_some(Rotation { every, next })
    }
}

impl From<&Description> for CustodyV4 {
    fn from(of: &Description) -> Self {
        let imported = of.versions.iter().filter(|of| of.origin == KekOrigin::Imported);
        let exported = of.versions.iter().filter_map(|of| Some((of.version.0, of.exported?.as_millis())));
        Self {
            exportable: of.exportable,
            imported: imported.map(|of| of.version.0).collect(),
            exported: exported.collect(),
        }
    }
}

impl CustodyV4 {
    /// Says it in the description; a version that is not listed there, or named twice, is damage.
    fn apply(self, mut description: Description) -> Result<Description, KeyringError> {
        description.exportable = self.exportable;
        for version in &self.imported {
            listed(&mut description, *version)?.origin = KekOrigin::Imported;
        }
        for (version, at) in &self.exported {
            listed(&mut description, *version)?.exported = Some(Timestamp::from_millis(*at));
        }
        // What is written is in one form only.
        let is_canonical = self.imported.is_sorted_by(|one, next| one < next)
            && self.exported.is_sorted_by(|(one, _), (next, _)| one < next);
        if is_canonical { Ok(description) } else { Err(KeyringError::Integrity) }
    }
}

impl From<VersionV1> for VersionV2 {
    fn from(of: VersionV1) -> Self {
        let VersionV1 { version, state, created_ms, changed_ms } = of;
        Self { version, state, created_ms, changed_ms, destroy_ms: 0 }
    }
}

impl From<&KekVersionState> for VersionV2 {
    fn from(of: &KekVersionState) -> Self {
        Self {
            version: of.version.0,
            state: kek_state_number(of.state),
            created_ms: of.created.as_millis(),
            changed_ms: of.changed.as_millis(),
            destroy_ms: of.destroy_at.map_or(0, Timestamp::as_millis),
        }
    }
}

impl VersionV2 {
    fn check(&self) -> Option<KekVersionState> {
        let state = kek_state(self.state)?;
        let scheduled = state == KekState::DestroyScheduled;
        let destroy_at = scheduled.then(|| Timestamp::from_millis(self.destroy_ms));
        (scheduled || self.destroy_ms == 0).then(|| KekVersionState {
            version: KekVersion(self.version),
            state,
            created: Timestamp::from_millis(self.created_ms),
            changed: Timestamp::from_millis(self.changed_ms),
            destroy_at,
            origin: KekOrigin::Generated,
            exported: None,
        })
    }
}

fn listed(description: &mut Description, version: u32) -> Result<&mut KekVersionState, KeyringError> {
    let versions = &mut description.versions;
    let at = versions.binary_search_by_key(&version, |of| of.version.0);
    at.ok().and_then(|at| versions.get_mut(at)).ok_or(KeyringError::Integrity)
}

/// The one primary among versions that ascend. A destroyed tenant has none, nor any other version that is not destroyed.
fn the_primary(state: TenantState, versions: &[KekVersionState]) -> Result<Option<KekVersion>, KeyringError> {
    if !versions.is_sorted_by(|one, next| one.version < next.version) {
        return Err(KeyringError::Integrity);
    }
    if state == TenantState::Destroyed {
        let all = versions.iter().all(|of| of.state == KekState::Destroyed);
        return if all { Ok(None) } else { Err(KeyringError::Integrity) };
    }
    let mut primaries = versions.iter().filter(|of| of.state == KekState::Primary);
    match (primaries.next(), primaries.next()) {
        (Some(primary), None) => Ok(Some(primary.version)),
        (None | Some(_), None | Some(_)) => Err(KeyringError::Integrity),
    }
}

const fn tenant_state_number(state: TenantState) -> u8 {
    match state {
        TenantState::Active => 1,
        TenantState::Suspended => 2,
        TenantState::DestroyScheduled => 3,
        TenantState::Destroyed => 4,
    }
}

const fn tenant_state(number: u8) -> Option<TenantState> {
    match number {
        1 => Some(TenantState::Active),
        2 => Some(TenantState::Suspended),
        3 => Some(TenantState::DestroyScheduled),
        4 => Some(TenantState::Destroyed),
        _ => None,
    }
}

const fn kek_state_number(state: KekState) -> u8 {
    match state {
        KekState::Pending => 1,
        KekState::Primary => 2,
        KekState::Enabled => 3,
        KekState::Disabled => 4,
        KekState::DestroyScheduled => 5,
        KekState::Destroyed => 6,
    }
}

const fn kek_state(number: u8) -> Option<KekState> {
    match number {
        1 => Some(KekState::Pending),
        2 => Some(KekState::Primary),
        3 => Some(KekState::Enabled),
        4 => Some(KekState::Disabled),
        5 => Some(KekState::DestroyScheduled),
        6 => Some(KekState::Destroyed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;

    const TENANT: TenantRef = TenantRef { id: TenantId([1; 16]), incarnation: 1 };
    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    /// A tenant with three versions: the first was generated and exported, the second imported.
    fn description() -> Description {
        let version = |number, state, origin| KekVersionState::new(KekVersion(number), state, origin, NOW);
        let mut first = version(1, KekState::Enabled, KekOrigin::Generated);
        first.exported = Some(NOW);
        let second = version(2, KekState::Primary, KekOrigin::Imported);
        let third = version(3, KekState::Pending, KekOrigin::Generated);
        Description {
            tenant: TENANT,
            name: TenantName::new("demo").unwrap(),
            state: TenantState::Active,
            created: NOW,
            changed: NOW,
            kek_id: [2; 12],
            primary: Some(KekVersion(2)),
            versions: vec![first, second, third],
            audit_epoch: 1,
            pseudonym_version: 1,
            rotation: None,
            destroy_at: None,
            exportable: true,
        }
    }

    /// The payload with other words about custody.
    fn with(custody: &CustodyV4) -> Result<Description, KeyringError> {
        let whole = encode_tenant(&description()).unwrap();
        let known = postcard::to_allocvec(&CustodyV4::from(&description())).unwrap();
        let mut bytes = whole[..whole.len() - known.len()].to_vec();
        bytes.extend(postcard::to_allocvec(custody).unwrap());
        decode_tenant(TENANT, &bytes)
    }

    #[test]
    fn origins_and_exports_come_back() {
        let payload = encode_tenant(&description()).unwrap();
        assert_eq!(decode_tenant(TENANT, &payload).unwrap(), description());
    }

    #[test]
    fn earlier_versions_are_still_read_and_let_nothing_out() {
        let whole = encode_tenant(&description()).unwrap();
        let custody = postcard::to_allocvec(&CustodyV4::from(&description())).unwrap();
        // The third ends before what is said about custody, the second before the tenant's destruction: a zero byte.
        for (version, missing) in [(TENANT_V3, custody.len()), (TENANT_V2, custody.len() + 1)] {
            let mut earlier = whole[..whole.len() - missing].to_vec();
            earlier[0] = version;
            let read = decode_tenant(TENANT, &earlier).unwrap();
            assert!(!read.exportable);
            let plain = |of: &KekVersionState| of.origin == KekOrigin::Generated && of.exported.is_none();
            assert!(read.versions.len() == 3 && read.versions.iter().all(plain));
        }
    }

    #[test]
    fn custody_of_versions_that_are_not_listed_or_named_twice_is_damage() {
        let custody = |imported: &[u32], exported: &[(u32, u64)]| CustodyV4 {
            exportable: true,
            imported: imported.to_vec(),
            exported: exported.to_vec(),
        };
        assert!(with(&custody(&[1, 3], &[(2, 5), (3, 5)])).is_ok());
        let wrong = [
            custody(&[4], &[]),
            custody(&[0], &[]),
            custody(&[2, 1], &[]),
            custody(&[1, 1], &[]),
            custody(&[], &[(4, 5)]),
            custody(&[], &[(2, 5), (1, 5)]),
            custody(&[], &[(1, 5), (1, 6)]),
        ];
        for custody in wrong {
            assert!(matches!(with(&custody), Err(KeyringError::Integrity)));
        }
    }
}
