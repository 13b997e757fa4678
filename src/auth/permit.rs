//! Decisions: a permit is the proof that one was made.

use std::marker::PhantomData;
use std::sync::Arc;

use super::Caller;
use crate::model::{Grant, Scope, Scopes, TenantName, TenantSet};

/// What a decision is about: one tenant, or the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A tenant's data, keys or log.
    Tenant(TenantName),
    /// The server itself: all tenants, tokens, status, its own log.
    Server,
}

/// Something that needs a permit.
pub trait Action: Send + Sync + 'static {
    /// The scope that allows it.
    const SCOPE: Scope;
}

macro_rules! action {
    ($(#[$doc:meta])* $name:ident: $scope:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl Action for $name {
            const SCOPE: Scope = Scope::$scope;
        }
    };
}

action!(
    /// Reads redacted views and metadata.
    Read: Read
);
action!(
    /// Reads full views.
    ReadFull: ReadFull
);
action!(
    /// Creates, changes and deletes sessions, entries and events.
    Write: Write
);
action!(
    /// Lists the sessions of a tenant.
    ListSessions: Write
);
action!(
    /// Purges the sensitive part of a session.
    PurgeSensitive: Purge
);
action!(
    /// Lists, rotates, promotes, enables and disables keys.
    ManageKeys: Keys
);
action!(
    /// Destroys keys after a grace period.
    DestroyKeys: KeysDestroy
);
action!(
    /// Destroys keys at once.
    DestroyKeysNow: KeysDestroyNow
);
action!(
    /// Looks at, rolls and shares the root key.
    ManageRoot: Root
);
action!(
    /// Imports key material.
    ImportKeys: KeysImport
);
action!(
    /// Exports keys.
    ExportKeys: KeysExport
);
action!(
    /// Reads an access log.
    ReadAudit: Audit
);
action!(
    /// Creates, suspends and resumes tenants.
    ManageTenants: Tenants
);
action!(
    /// Creates, lists and revokes tokens.
    ManageTokens: Tokens
);
action!(
    /// Reads the server's status.
    ReadStatus: Status
);

/// The proof that a caller may do `A` to one target. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit<A> {
    caller: Arc<Caller>,
    target: Target,
    action: PhantomData<A>,
}

impl<A> Permit<A> {
    /// Who may.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// To what.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }
}

impl<A> Clone for Permit<A> {
    fn clone(&self) -> Self {
        Self { caller: Arc::clone(&self.caller), target: self.target.clone(), action: PhantomData }
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The credentials are not for this target. The caller must not learn whether it exists.
    #[error("the target is not one of the caller's")]
    Foreign,
    /// The credentials are for the target, but not for the action.
    #[error("the credentials lack the scope \"{}\"", .0.name())]
    Scope(Scope),
}

/// Decides whether `caller` may do `A` to `target`.
///
/// # Errors
/// [`Denied`] unless the credentials name both.
pub fn authorize<A: Action>(caller: &Arc<Caller>, target: Target) -> Result<Permit<A>, Denied> {
    allows(caller, &target, &[A::SCOPE])?;
    Ok(Permit { caller: Arc::clone(caller), target, action: PhantomData })
}

/// Whether the credentials of `caller` allow everything that needs `scopes`, to be done to
/// `target`: for who is to decide about what somebody else does. It makes no permit. What needs no
/// scope is denied. A scope counts for the tenants of its own grant alone.
///
/// # Errors
/// [`Denied`] unless they name the target and every scope.
pub fn allows(caller: &Caller, target: &Target, scopes: &[Scope]) -> Result<(), Denied> {
    let mut own = caller.principal.grants().iter().filter(|grant| names(grant, target)).peekable();
    if scopes.is_empty() || own.peek().is_none() {
        return Err(Denied::Foreign);
    }
    let allowed: Scopes = own.flat_map(|grant| grant.scopes.iter()).collect();
    let missing = scopes.iter().find(|scope| !allowed.allows(**scope));
    missing.map_or(Ok(()), |scope| Err(Denied::Scope(*scope)))
}

fn names(grant: &Grant, target: &Target) -> bool {
    match target {
        Target::Tenant(tenant) => grant.tenants.contains(tenant),
        Target::Server => grant.tenants == TenantSet::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Principal;
    use crate::model::Timestamp;

    fn caller(scopes: &[Scope], tenants: TenantSet) -> Arc<Caller> {
        granted(&[(scopes, tenants)])
    }

    fn granted(grants: &[(&[Scope], TenantSet)]) -> Arc<Caller> {
        let grant = |(scopes, tenants): &(&[Scope], TenantSet)| Grant {
            scopes: scopes.iter().copied().collect(),
            tenants: tenants.clone(),
        };
        let grants = grants.iter().map(grant).collect();
        let principal = Principal::new("token:t".to_owned(), grants, Timestamp::FAR_FUTURE);
        Arc::new(Caller { principal, source: None, trace: None })
    }

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).unwrap()
    }

    #[test]
    fn a_permit_needs_the_scope_and_the_tenant() {
        let caller = caller(&[Scope::Read], TenantSet::Only([tenant("a")].into()));
        assert!(authorize::<Read>(&caller, Target::Tenant(tenant("a"))).is_ok());
        let write = authorize::<Write>(&caller, Target::Tenant(tenant("a")));
        assert_eq!(write.err(), Some(Denied::Scope(Scope::Write)));
        let foreign = authorize::<Read>(&caller, Target::Tenant(tenant("b")));
        assert_eq!(foreign.err(), Some(Denied::Foreign));
        assert_eq!(authorize::<ReadStatus>(&caller, Target::Server).err(), Some(Denied::Foreign));
    }

    #[test]
    fn the_scopes_of_one_grant_do_not_count_for_the_tenants_of_another() {
        let only = |name: &str| TenantSet::Only([tenant(name)].into());
        let caller = granted(&[(&[Scope::Read], only("a")), (&[Scope::Write], only("b"))]);
        assert!(authorize::<Read>(&caller, Target::Tenant(tenant("a"))).is_ok());
        assert!(authorize::<Write>(&caller, Target::Tenant(tenant("b"))).is_ok());
        let crossed = authorize::<Write>(&caller, Target::Tenant(tenant("a")));
        assert_eq!(crossed.err(), Some(Denied::Scope(Scope::Write)));
        let nobody = granted(&[]);
        assert_eq!(authorize::<Read>(&nobody, Target::Tenant(tenant("a"))).err(), Some(Denied::Foreign));
    }

    #[test]
    fn credentials_without_scopes_allow_nothing() {
        let caller = caller(&[], TenantSet::All);
        assert_eq!(authorize::<Read>(&caller, Target::Server).err(), Some(Denied::Scope(Scope::Read)));
        assert_eq!(
            authorize::<ReadStatus>(&caller, Target::Server).err(),
            Some(Denied::Scope(Scope::Status))
        );
    }
}
