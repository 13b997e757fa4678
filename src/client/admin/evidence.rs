//! Access logs as evidence: checkpoints, proofs and exports, which can be verified without trusting the server.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tonic::Streaming;
use uuid::Uuid;

use super::Admin;
use crate::client::Answer;
use crate::client::error::{CallError, ClientError};
use crate::client::link::{admin, call};
use crate::proto::v1;

/// A signed checkpoint of an access log, as the server gave it: nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// The signed note: <https://c2sp.org/tlog-checkpoint>.
    pub checkpoint: String,
    /// The key with which the server says that it verifies, as <https://c2sp.org/signed-note> writes it.
    pub verifier_key: String,
    /// The proof that the log goes on from the earlier checkpoint that was named.
    pub consistency: Vec<[u8; 32]>,
}

/// An event with the proof that it is in its access log, as the server gave them: nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditProof {
    /// The proof: <https://c2sp.org/tlog-proof>.
    pub proof: String,
    /// The canonical line, exactly as hashed into the log: JSON.
    pub line: String,
    /// As [`AuditCheckpoint::verifier_key`].
    pub verifier_key: String,
}

/// All events of an access log up to a checkpoint, as the server gives them: nothing of it is verified yet.
pub struct AuditExport {
    /// As [`AuditCheckpoint::checkpoint`].
    pub checkpoint: String,
    /// As [`AuditCheckpoint::verifier_key`].
    pub verifier_key: String,
    /// The canonical lines in order, from event 0 on, some at a time. A broken stream ends with an error; the export begins
    /// anew then.
    pub lines: BoxStream<'static, Result<Vec<String>, ClientError>>,
}

impl std::fmt::Debug for AuditExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditExport").field("checkpoint", &self.checkpoint).finish_non_exhaustive()
    }
}

impl Admin {
    /// Returns a signed checkpoint of an access log, and the proof that it goes on from one of `since_size` events; 0 asks for
    /// none. `tenant` is as for [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit_checkpoint(
        &self,
        tenant: Option<&str>,
        since_size: u64,
    ) -> Result<Answer<AuditCheckpoint>, ClientError> {
        let request = v1::GetCheckpointRequest { tenant: tenant.unwrap_or_default().to_owned(), since_size };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_checkpoint)).await?;
        answer.try_map(|response| {
            let hashes = response.consistency_proof.iter().map(|hash| hash[..].try_into());
            let consistency =
                hashes.collect::<Result<_, _>>().map_err(|_| ClientError::Malformed { what: "proof" })?;
            let (checkpoint, verifier_key) = (response.checkpoint, response.verifier_key);
            Ok(AuditCheckpoint { checkpoint, verifier_key, consistency })
        })
    }

    /// Returns an event of an access log and the proof that it is there. `tenant` is as for
    /// [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// `EVENT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn prove_event(
        &self,
        tenant: Option<&str>,
        sequence: u64,
    ) -> Result<Answer<AuditProof>, ClientError> {
        let request = v1::GetProofRequest { tenant: tenant.unwrap_or_default().to_owned(), sequence };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_proof)).await?;
        Ok(answer.map(|response| AuditProof {
            proof: response.proof,
            line: response.line,
            verifier_key: response.verifier_key,
        }))
    }

    /// Exports an access log up to the event that records this. `tenant` is as for [`search_audit`](Self::search_audit).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn export_audit(&self, tenant: Option<&str>) -> Result<AuditExport, ClientError> {
        let request = v1::ExportAuditRequest { tenant: tenant.unwrap_or_default().to_owned() };
        let mut stream = self.link.open(request, call!(admin.export_audit)).await?;
        let first = next(&mut stream).await.ok_or(ClientError::Malformed { what: "export" })??;
        let v1::ExportAuditResponse { checkpoint, verifier_key, lines } = first;
        let rest = futures_util::stream::unfold(stream, async |mut stream| {
            let message = next(&mut stream).await?;
            Some((message.map(|message| message.lines), stream))
        });
        let lines = futures_util::stream::once(async { Ok(lines) }).chain(rest).boxed();
        Ok(AuditExport { checkpoint, verifier_key, lines })
    }
}

async fn next(
    stream: &mut Streaming<v1::ExportAuditResponse>,
) -> Option<Result<v1::ExportAuditResponse, ClientError>> {
    let message = stream.message().await;
    message.map_err(|status| CallError::from_status(&status, None).into()).transpose()
}
