//! Long work: backups, verifying, compacting. One at a time; what came of the last ones is kept.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use comity::Replica;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::App;
use super::problem::{Problem, Trouble};
use super::request::{Json as Body, Names};
use crate::auth::{Access, Scope};
use crate::backup;

/// Jobs whose outcome is kept.
const JOBS_MAX: usize = 16;
/// Faults that a job tells; they are counted beyond.
const FAULTS_MAX: usize = 1_000;

/// What is to be done.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Work {
    /// A consistent copy of everything, while the daemon goes on.
    Backup {
        /// An absolute path on the daemon's machine, missing or empty.
        #[schema(value_type = String)]
        directory: PathBuf,
    },
    /// Walks chains, signatures, digests and indexes.
    Verify,
    /// Gives the space that the data file does not use any more back to the file system.
    Compact,
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Verify => "verify",
            Self::Compact => "compact",
        }
    }
}

/// One job.
struct Job {
    id: u64,
    work: Work,
    /// Rows that were copied or looked at.
    done: AtomicU64,
    /// Of so many.
    all: AtomicU64,
    /// Set once.
    outcome: Mutex<Option<Result<Json, String>>>,
}

impl Job {
    fn note(&self, done: u64, all: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }

    fn to_json(&self) -> Json {
        let outcome = lock(&self.outcome);
        let (state, result, error) = match &*outcome {
            None => ("running", None, None),
            Some(Ok(result)) => ("done", Some(result.clone()), None),
            Some(Err(error)) => ("failed", None, Some(error.clone())),
        };
        json!({
            "id": self.id,
            "kind": self.work.name(),
            "state": state,
            "done": self.done.load(Ordering::Relaxed),
            "all": self.all.load(Ordering::Relaxed),
            "result": result,
            "error": error,
        })
    }
}

/// The jobs of a daemon.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<VecDeque<Arc<Job>>>);

/// A lock whose holder panicked protects nothing that could be half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    fn begin(&self, work: Work) -> Result<Arc<Job>, Problem> {
        let mut jobs = lock(&self.0);
        if let Some(running) = jobs.iter().find(|job| lock(&job.outcome).is_none()) {
            let detail = format!("a {} is under way as job {}; wait for it", running.work.name(), running.id);
            return Err(Trouble::Unavailable.because(detail));
        }
        let id = jobs.back().map_or(1, |job| job.id + 1);
        let (done, all, outcome) = Default::default();
        let job = Arc::new(Job { id, work, done, all, outcome });
        jobs.push_back(Arc::clone(&job));
        while jobs.len() > JOBS_MAX {
            jobs.pop_front();
        }
        Ok(job)
    }

    fn find(&self, id: u64) -> Option<Arc<Job>> {
        lock(&self.0).iter().find(|job| job.id == id).cloned()
    }
}

async fn run(replica: Replica, job: Arc<Job>) {
    let outcome = match &job.work {
        Work::Backup { directory } => {
            let shown = Arc::clone(&job);
            backup::back_up(&replica, directory, move |done, all| shown.note(done, all))
                .await
                .map(|note| json!(note))
        }
        Work::Verify => verify(&replica, &job).await,
        Work::Compact => replica
            .compact()
            .await
            .map_err(|error| error.to_string())
            .map(|report| json!({"detail": format!("{report:?}")})),
    };
    match &outcome {
        Ok(_) => tracing::info!(job = job.id, kind = job.work.name(), "a job is done"),
        Err(error) => tracing::error!(job = job.id, kind = job.work.name(), %error, "a job failed"),
    }
    *lock(&job.outcome) = Some(outcome);
}

/// Verifies, and tells the first faults.
async fn verify(replica: &Replica, job: &Arc<Job>) -> Result<Json, String> {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let (found, shown) = (Arc::clone(&faults), Arc::clone(job));
    let tell = move |fault: comity::Fault| {
        tracing::error!(%fault, "verifying found a fault");
        let mut found = lock(&found);
        if found.len() < FAULTS_MAX {
            found.push(fault.to_string());
        }
    };
    let verified = replica.verify(tell, move |done, all| shown.note(done, all));
    let verified = verified.await.map_err(|error| error.to_string())?;
    let told = lock(&faults).clone();
    Ok(verified_json(&verified, &told))
}

/// What verifying came to.
pub(crate) fn verified_json(verified: &comity::Verified, faults: &[String]) -> Json {
    json!({
        "spaces": verified.spaces,
        "installing": verified.installing,
        "lanes": verified.lanes,
        "entries": verified.entries,
        "signatures": verified.signatures,
        "objects": verified.objects,
        "elements": verified.elements,
        "documents": verified.documents,
        "journal": verified.journal,
        "faults": verified.faults,
        "found": faults,
    })
}

/// Begins a job.
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    access: Access,
    Body(work): Body<Work>,
) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Admin)?;
    if let Work::Backup { directory } = &work
        && !directory.is_absolute()
    {
        let detail = format!("the directory {} must be an absolute path", directory.display());
        return Err(Trouble::BadRequest.because(detail));
    }
    let job = app.jobs.begin(work)?;
    let answer = (StatusCode::ACCEPTED, axum::Json(job.to_json())).into_response();
    tokio::spawn(run(app.replica.clone(), job));
    Ok(answer)
}

/// The jobs of late, oldest first.
pub(crate) async fn list(State(app): State<Arc<App>>, access: Access) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Admin)?;
    let jobs: Vec<Json> = lock(&app.jobs.0).iter().map(|job| job.to_json()).collect();
    Ok(axum::Json(json!({"jobs": jobs})).into_response())
}

/// One job.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    access: Access,
    Names(id): Names<u64>,
) -> Result<Response, Problem> {
    access.require_everywhere(Scope::Admin)?;
    let job = app.jobs.find(id).ok_or_else(|| Trouble::NotFound.because(format!("there is no job {id}")))?;
    Ok(axum::Json(job.to_json()).into_response())
}
