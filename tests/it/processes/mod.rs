//! Several processes on one database and one engine: killed, restarted, paused, and what the others make
//! of it.

mod adoption;
mod late_launch;
mod nodes;
mod rounds;

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::{TestDatabase, empty_database};
use crate::support::service::{Options, Service};

/// What all processes share.
struct Deployment {
    database: TestDatabase,
    files: TempDir,
}

impl Deployment {
    /// None: there is no server for its database.
    async fn new() -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        Some(Self { database: empty_database().await?, files })
    }

    fn url(&self) -> &str {
        &self.database.url
    }

    async fn process(&self, roles: &str, lease: Lease) -> Service {
        Service::start_with(self.options(roles, lease)).await
    }

    fn options(&self, roles: &str, lease: Lease) -> Options {
        let folder = self.files.path().display().to_string();
        let mut env = vec![("SUPERCARGO__OBJECT_STORE__FOLDER".to_owned(), folder)];
        if let Lease::Short = lease {
            env.push(("SUPERCARGO__WORKER__HEARTBEAT".to_owned(), "500ms".to_owned()));
            env.push(("SUPERCARGO__WORKER__LEASE".to_owned(), "3s".to_owned()));
        }
        Options {
            database_url: Some(self.url().to_owned()),
            args: vec!["--roles".to_owned(), roles.to_owned()],
            env,
            ..Options::default()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Lease {
    /// As it is where nothing is configured.
    Default,
    /// 3 s.
    Short,
}

fn worker_id(service: &Service) -> String {
    let file = service.data_dir().join("data/worker.id");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// When the task was last taken over.
async fn adopted_at(service: &Service, task: &str) -> Option<Timestamp> {
    let path = format!("/tasks/{task}/events");
    let events = service.try_request("GET", &path, None).await.ok()?.json();
    let adopted = events["items"].as_array()?.iter().filter(|it| it["reason"] == "adopted");
    adopted.filter_map(|it: &Value| it["at"].as_str()?.parse().ok()).max()
}

fn seconds_after(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64()
}
