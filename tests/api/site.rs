//! One tenant to itself: on the shared server process, or in memory in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use strongroom::proto::v1::{self, Scope};
use tonic::{Code, Response, Status};

use crate::requests;
use crate::support::{Approving, Context, Control, Daemon, Inside, Login, Refusal, Stamp, answered, refused};

/// A tenant, and clients with tokens for it.
pub struct Site {
    host: Host,
    pub tenant: String,
    app: Context,
    reader: Context,
    admin: Control,
}

enum Host {
    Outside(Arc<Daemon>),
    Inside(Box<Inside>),
}

/// A number that no other tenant or token of this process has.
fn number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Site {
    /// A new tenant on the server process that all tests share.
    pub async fn outside() -> Self {
        Self::on(Daemon::shared().await).await
    }

    /// A new tenant on a server process.
    pub async fn on(daemon: Arc<Daemon>) -> Self {
        let mut admin = daemon.control(Login::Admin);
        let tenant = format!("tenant-{}", number());
        let create = v1::CreateTenantRequest { name: tenant.clone(), ..Default::default() };
        answered(admin.create_tenant(create).await);
        let all = [Scope::Read, Scope::ReadFull, Scope::Write];
        let app = mint(&mut admin, &all, &[&tenant]).await;
        let reader = mint(&mut admin, &[Scope::Read], &[&tenant]).await;
        let (app, reader) = (daemon.context_with(Some(&app)), daemon.context_with(Some(&reader)));
        Self { host: Host::Outside(daemon), tenant, app, reader, admin }
    }

    /// The tenant `demo` of a service in memory.
    pub async fn inside() -> Self {
        Self::within(Inside::open().await)
    }

    pub fn within(inside: Inside) -> Self {
        let (app, reader) = (inside.context(Login::App), inside.context(Login::Reader));
        let admin = inside.control(Login::Admin);
        Self { host: Host::Inside(Box::new(inside)), tenant: "demo".to_owned(), app, reader, admin }
    }

    /// The service in memory, with its clock and its rows.
    pub fn world(&self) -> &Inside {
        match &self.host {
            Host::Inside(inside) => inside,
            Host::Outside(_) => panic!("this site is a server process"),
        }
    }

    /// The same store in the hands of another process.
    pub async fn reopened(self) -> Self {
        match self.host {
            Host::Inside(inside) => Self::within(inside.reopen().await),
            Host::Outside(_) => panic!("this site is a server process"),
        }
    }

    /// Reads in full and writes.
    pub fn app(&self) -> Context {
        self.app.clone()
    }

    /// Reads redacted views.
    pub fn reader(&self) -> Context {
        self.reader.clone()
    }

    /// May do everything.
    pub fn admin(&self) -> Control {
        self.admin.clone()
    }

    /// May do everything, on the data plane.
    pub fn root(&self) -> Context {
        match &self.host {
            Host::Outside(daemon) => daemon.context(Login::Admin),
            Host::Inside(inside) => inside.context(Login::Admin),
        }
    }

    /// The secret of a new token.
    pub async fn token(&self, scopes: &[Scope], tenants: &[&str]) -> String {
        mint(&mut self.admin(), scopes, tenants).await
    }

    /// A client of the data plane with a token of its own for this tenant.
    pub async fn client(&self, scopes: &[Scope]) -> Context {
        let secret = self.token(scopes, &[&self.tenant]).await;
        self.context(Some(&secret))
    }

    /// A client of the data plane.
    pub fn context(&self, secret: Option<&str>) -> Context {
        match &self.host {
            Host::Outside(daemon) => daemon.context_with(secret),
            Host::Inside(inside) => inside.context_with(secret),
        }
    }

    /// A client of the control plane.
    pub fn control(&self, secret: Option<&str>) -> Control {
        match &self.host {
            Host::Outside(daemon) => daemon.control_with(secret),
            Host::Inside(inside) => inside.control_with(secret),
        }
    }

    /// A client of what waits for a second person.
    pub fn approving(&self, secret: Option<&str>) -> Approving {
        match &self.host {
            Host::Outside(daemon) => daemon.approving_with(secret),
            Host::Inside(inside) => inside.approving_with(secret),
        }
    }

    /// A new session without an owner.
    pub async fn session(&self) -> v1::SessionRef {
        self.create(requests::create(&self.tenant)).await
    }

    /// A new session, named as it must be named from then on.
    pub async fn create(&self, create: v1::CreateSessionRequest) -> v1::SessionRef {
        let (made, _) = answered(self.app().create_session(create).await);
        let made = made.session.unwrap();
        v1::SessionRef { tenant: self.tenant.clone(), session_id: made.session_id, owner: made.owner }
    }

    /// Puts an entry and returns its revision.
    pub async fn put(&self, session: &v1::SessionRef, key: &str, value: &str) -> u64 {
        let (made, _) = answered(self.app().put_entry(requests::put(session, key, value)).await);
        made.metadata.unwrap().revision
    }

    /// The entry's revision and value; `None` when there is none.
    pub async fn look(&self, session: &v1::SessionRef, key: &str) -> Option<(u64, Vec<u8>)> {
        match self.app().read_entry(requests::read(session, key)).await {
            Ok(found) => {
                let entry = found.into_inner().entry.unwrap();
                Some((entry.metadata.unwrap().revision, entry.value.to_vec()))
            }
            Err(status) => {
                assert_eq!(Refusal::of(&status).reason, "ENTRY_NOT_FOUND", "{status:?}");
                None
            }
        }
    }

    /// The message of a call that succeeded, and whose event says that.
    #[track_caller]
    pub fn answered<T>(
        &self,
        outcome: Result<Response<T>, Status>,
        typ: &str,
    ) -> impl Future<Output = T> + use<'_, T> {
        let (message, stamp) = answered(outcome);
        let typ = typ.to_owned();
        async move {
            self.recorded(&stamp, &typ, "ok", None).await;
            message
        }
    }

    /// The refusal of a call, with the code and the reason that it must have, and whose event says the same.
    #[track_caller]
    pub fn refused<T>(
        &self,
        outcome: Result<Response<T>, Status>,
        code: Code,
        reason: &str,
        (typ, out): (&str, &str),
    ) -> impl Future<Output = Refusal> + use<'_, T> {
        let refusal = refused(outcome, code, reason);
        let (typ, out, reason) = (typ.to_owned(), out.to_owned(), reason.to_owned());
        async move {
            let stamp = refusal.stamp.clone().expect("a refusal says where it is on record");
            self.recorded(&stamp, &typ, &out, Some(&reason)).await;
            refusal
        }
    }

    /// An INVALID_FIELD that blames one field, on record under the operation.
    #[track_caller]
    pub fn invalid<T>(
        &self,
        outcome: Result<Response<T>, Status>,
        field: &str,
        typ: &str,
    ) -> impl Future<Output = Refusal> + use<'_, T> {
        let refusing = self.refused(outcome, Code::InvalidArgument, "INVALID_FIELD", (typ, "fail"));
        let field = field.to_owned();
        async move {
            let refusal = refusing.await;
            assert_eq!(refusal.fields, [field], "{}", refusal.text);
            refusal
        }
    }

    /// The event at a place, which must say this.
    pub async fn recorded(&self, stamp: &Stamp, typ: &str, out: &str, reason: Option<&str>) -> Value {
        let event = self.event(stamp).await;
        let said = (event["typ"].as_str().unwrap(), event["out"].as_str().unwrap(), event["rsn"].as_str());
        assert_eq!(said, (typ, out, reason), "{event}");
        event
    }

    /// The event at a place, found by a search.
    pub async fn event(&self, stamp: &Stamp) -> Value {
        const SYSTEM: &str = "sr1/00000000000000000000000000000000/";
        let id = stamp.log.split('/').nth(1).unwrap();
        let tenant = if stamp.log.starts_with(SYSTEM) { String::new() } else { format!("uid:{id}") };
        let mut request = requests::search(&tenant);
        request.order = v1::AuditOrder::NewestFirst.into();
        loop {
            let (page, _) = answered(self.admin().search_audit(request.clone()).await);
            let found = page.events.iter().find(|event| event.sequence == stamp.sequence);
            if let Some(found) = found {
                assert_eq!(found.log, stamp.log);
                let event: Value = serde_json::from_str(&found.line).unwrap();
                assert_eq!(event["seq"], stamp.sequence);
                return event;
            }
            assert_ne!(page.next_page_token, "", "no event {} in {}", stamp.sequence, stamp.log);
            request.page_token = page.next_page_token;
        }
    }

    /// All events of the tenant's log from a sequence number on.
    pub async fn events_since(&self, first: u64) -> Vec<Value> {
        let mut request = requests::search(&self.tenant);
        let mut events = Vec::new();
        loop {
            let (page, _) = answered(self.admin().search_audit(request.clone()).await);
            let found = page.events.iter().filter(|event| event.sequence >= first);
            events.extend(found.map(|event| serde_json::from_str::<Value>(&event.line).unwrap()));
            if page.next_page_token.is_empty() {
                return events;
            }
            request.page_token = page.next_page_token;
        }
    }
}

async fn mint(admin: &mut Control, scopes: &[Scope], tenants: &[&str]) -> String {
    let create = v1::CreateTokenRequest {
        name: format!("token-{}", number()),
        scopes: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
        ..Default::default()
    };
    answered(admin.create_token(create).await).0.secret
}
